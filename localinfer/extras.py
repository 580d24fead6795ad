"""What comes with an extra, and the command that adds it to the very environment that this program runs in."""

import shlex
import sys
from pathlib import Path


def install_command(extra: str) -> str:
    """What to type to get `extra` of this project, be it in a virtual environment, under pipx or under uv."""
    prefix = Path(sys.prefix)
    if (prefix / "pipx_metadata.json").exists():
        return shlex.join(["pipx", "inject", "localinfer", *_requirements(extra)])
    if (prefix / "uv-receipt.toml").exists() or _made_by_uv(prefix):
        return shlex.join(["uv", "pip", "install", "--python", str(prefix), *_requirements(extra)])
    return f"{shlex.quote(sys.executable)} -m pip install 'localinfer[{extra}]'"


def _made_by_uv(prefix: Path) -> bool:
    """Such an environment has no pip of its own."""
    try:
        lines = (prefix / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(line.startswith("uv =") for line in lines)


def _requirements(extra: str) -> list[str]:
    """The packages of the extra, as the installed project names them."""
    from importlib.metadata import PackageNotFoundError, requires

    try:
        listed = requires("localinfer") or []
    except PackageNotFoundError:
        return [f"localinfer[{extra}]"]
    parts = [one.partition(";") for one in listed]
    named = [name.strip() for name, _, when in parts if f'extra == "{extra}"' in when.replace("'", '"')]
    return named or [f"localinfer[{extra}]"]
