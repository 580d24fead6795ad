"""`python -m localinfer.cli.generate`: writes what is made from the commands, the catalogue and the registry:
`completions/`, `docs/reference/commands.md`, `docs/guides/models.md`, and the lines of the help page.

Works in a checkout only. A test fails when what is checked in differs from what this would write.
"""

from pathlib import Path

from localinfer.bench.models_page import models_page
from localinfer.cli.output import note
from localinfer.cli.pages import SUMMARIES, summaries_text
from localinfer.cli.reference import reference
from localinfer.cli.scripts import FILES, script
from localinfer.cli.words import all_words

ROOT = Path(__file__).resolve().parents[2]


def generated() -> dict[Path, str]:
    """Every generated file, by its path from the root of the repository."""
    files = {Path("completions", name): script(shell) for shell, name in FILES.items()}
    docs = {Path("reference", "commands.md"): reference(), Path("guides", "models.md"): models_page()}
    lines = summaries_text((words.name, words.summary) for words in all_words())
    files |= {"docs" / name: text for name, text in docs.items()}
    return files | {SUMMARIES.relative_to(ROOT): lines}


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
