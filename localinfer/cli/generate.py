"""`python -m localinfer.cli.generate`: writes what is made from the commands, the catalogue and the registry:
`completions/`, `docs/reference.md` and `docs/models.md`.

Works in a checkout only. A test fails when what is checked in differs from what this would write.
"""

from pathlib import Path

from localinfer.bench.models_page import models_page
from localinfer.cli.output import note
from localinfer.cli.reference import reference
from localinfer.cli.scripts import FILES, script

ROOT = Path(__file__).resolve().parents[2]


def generated() -> dict[Path, str]:
    """Every generated file, by its path from the root of the repository."""
    files = {Path("completions", name): script(shell) for shell, name in FILES.items()}
    return {**files, Path("docs", "reference.md"): reference(), Path("docs", "models.md"): models_page()}


def main() -> None:
    """Write the files that differ."""
    for path, text in generated().items():
        target = ROOT / path
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            note(f"wrote {path}")


if __name__ == "__main__":
    main()
