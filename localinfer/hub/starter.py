"""Get the original of a model, wherever it can be had: this machine, the Hub, or an installed package that ships it."""

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

from localinfer.errors import Corrupt, NetworkError, NotFound, size
from localinfer.extras import package_command
from localinfer.formats.durable import write_json
from localinfer.formats.layout import CONFIG, SINGLE
from localinfer.hub import catalogue
from localinfer.hub.catalogue import Entry, PackageSource
from localinfer.hub.hashing import sha256_file
from localinfer.hub.importing import Progress, import_file
from localinfer.hub.model import LocalModel
from localinfer.hub.resolve import resolve

Notice = Callable[[str], None]
"""Hears one line for the person, when something other than the expected happens."""


def ensure_source(
    ref: str,
    on_progress: Progress | None = None,
    *,
    on_notice: Notice | None = None,
    offline: bool = False,
    token: str | None = None,
) -> LocalModel:
    """The unquantized form of `ref`, fetched when it is an alias of the catalogue and not here.

    An alias with a package source never waits long for an unreachable Hub: it says so through `on_notice` and takes
    the package's file. Raises `NotFound` (with what to install) when there is no way, `Corrupt` when the package's file
    is not the one the catalogue knows, and whatever `pull` raises.
    """
    entry = catalogue.find(ref.strip())
    if entry is None:
        return resolve(ref, offline=offline)
    try:
        return resolve(entry.repo, offline=offline)
    except NotFound:
        pass
    if entry.package is None:
        return _pull(entry, token, offline, on_progress, patient=True)
    if not offline:
        try:
            return _pull(entry, token, offline, on_progress, patient=False)
        except (NetworkError, NotFound) as error:
            if on_notice is not None:
                on_notice(f"{error.message}; taking the weights of package {entry.package.package} instead")
    return _import_package(entry, entry.package, on_progress)


def package_file(source: PackageSource) -> Path:
    """The file inside the installed package, found through its metadata: the package itself is never imported.

    Raises `NotFound` with the command that installs it, `Corrupt` when size or sha256 differ from the catalogue's.
    """
    install = f"run `{package_command(source.package, '--no-deps')}`"
    try:
        distribution = importlib.metadata.distribution(source.package)
    except importlib.metadata.PackageNotFoundError:
        raise NotFound(f"the package `{source.package}` is not installed", hint=install) from None
    path = Path(str(distribution.locate_file(source.file)))
    if not path.is_file():
        raise NotFound(f"the package `{source.package}` does not hold `{source.file}`", hint=install)
    again = f"run `{package_command(source.package, '--no-deps', '--force-reinstall')}`"
    if path.stat().st_size != source.size:
        raise Corrupt(f"{path} is {size(path.stat().st_size)}, but must be {size(source.size)}", hint=again)
    found = sha256_file(path)
    if found != source.sha256:
        raise Corrupt(f"{path} has the wrong sha256: expected {source.sha256}, got {found}", hint=again)
    return path


def look_into_package(source: PackageSource, folder: Path) -> int:
    """Fill the empty `folder` with what importing the package's file would write, as `peek` does: the configuration,
    and a weight file that is a header and a hole. Gives that file's bytes; raises what `package_file` does."""
    from localinfer.formats.gguf import GgufFile
    from localinfer.formats.gguf_import import read_plan
    from localinfer.formats.safetensors import write_hollow

    plan, _ = read_plan(GgufFile(package_file(source)))
    write_hollow(folder / SINGLE, {tensor.name: ("BF16", tensor.shape) for tensor in plan.tensors})
    write_json(folder / CONFIG, plan.config)
    return (folder / SINGLE).stat().st_size


def _import_package(entry: Entry, source: PackageSource, on_progress: Progress | None) -> LocalModel:
    version = f"{source.package} {_version(source.package)}"
    # As bf16: the original that quantizers round from is stored so.
    return import_file(package_file(source), entry.repo, on_progress, source={"package": version})


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _pull(entry: Entry, token: str | None, offline: bool, on_progress: Progress | None, *, patient: bool) -> LocalModel:
    from localinfer.hub.client import pull
    from localinfer.hub.patience import HASTY

    first = None if patient else HASTY
    return pull(
        entry.repo,
        revision=entry.revision,
        token=token,
        offline=offline,
        on_progress=on_progress,
        first_patience=first,
    )
