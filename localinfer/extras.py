"""What comes with an extra, and the command that adds it to the very environment that this program runs in."""

import shlex
import sys
from pathlib import Path


def install_command(extra: str) -> str:
    """What to type to get `extra` of this project, be it in a virtual environment, under pipx or under uv."""
    way = _installer()
    if way is None:
        return f"{shlex.quote(sys.executable)} -m pip install 'localinfer[{extra}]'"
    return shlex.join([*way, *_requirements(extra)])


def package_command(package: str, *options: str) -> str:
    """What to type to get a package of PyPI beside this program; `options` are pip's."""
    way = _installer() or [sys.executable, "-m", "pip", "install", *options]
    return shlex.join([*way, package])


def _installer() -> list[str] | None:
    """What adds packages to an environment that pipx or uv made; None for any other."""
    prefix = Path(sys.prefix)
    if (prefix / "pipx_metadata.json").exists():
        return ["pipx", "inject", "localinfer"]
    if (prefix / "uv-receipt.toml").exists() or _made_by_uv(prefix):
        return ["uv", "pip", "install", "--python", str(prefix)]
    return None


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
