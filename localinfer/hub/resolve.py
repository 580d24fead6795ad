"""From what a person typed to a model on this machine. Never touches the network, loads nothing heavy."""

from difflib import get_close_matches
from pathlib import Path

from localinfer.errors import Corrupt, LocalInferError, NotFound, NotSupported
from localinfer.formats.layout import PICKLES, SINGLE
from localinfer.hub import catalogue
from localinfer.hub.cache import forms_of, list_models, read_ref, repo_dir
from localinfer.hub.checkpoint import is_imported, missing_file, recorded_revision, size_on_disk, variant_of
from localinfer.hub.model import LocalModel, variant_of_bits
from localinfer.hub.names import COMMIT
from localinfer.hub.reference import Reference, parse
from localinfer.hub.unfinished import Unfinished, find_unfinished

__all__ = ["LocalModel", "resolve"]


def resolve(ref: str, *, revision: str | None = None, offline: bool = False) -> LocalModel:
    """The model that `ref` means, which must be here and whole.

    `org/name` is the original (of a GGUF file, what it was imported as), `org/name:INT4` that form; an alias is its
    best quantized form (the advised bits first), else the original. Raises `NotFound` whose hint is the command that
    gets it, `Corrupt` for a directory with files missing, `UsageError` for a reference that is none. `offline` only
    changes the hint.
    """
    reference = parse(ref, revision=revision)
    if reference.path is not None:
        return _local(ref, reference.path)
    entry = catalogue.find(reference.name)
    alias = entry is not None and "/" not in reference.name
    name = entry.repo if entry else reference.name
    forms = _of_revision(forms_of(name), reference, name, entry.revision if entry and alias else None)
    if reference.variant is not None:
        chosen = next((form for form in forms if form.variant == reference.variant), None)
    elif alias and entry is not None:
        chosen = _best(forms, entry.advised_bits)
    else:
        chosen = _original(forms)
    if chosen is None:
        raise _not_installed(ref, name, reference, forms, alias=alias, offline=offline)
    return chosen


def _of_revision(forms: list[LocalModel], reference: Reference, name: str, pinned: str | None) -> list[LocalModel]:
    """Only the forms of the revision asked for; with none asked, those of a pinned commit come first."""
    if reference.revision is None:
        return sorted(forms, key=lambda form: pinned is not None and form.revision != pinned)
    wanted = reference.revision
    commit = read_ref(repo_dir(name), wanted) or wanted
    exact = COMMIT.fullmatch(commit) is not None
    return [form for form in forms if form.revision == commit or (not exact and _abbreviates(wanted, form.revision))]


def _abbreviates(short: str, commit: str | None) -> bool:
    return len(short) >= 7 and commit is not None and commit.startswith(short)


def _original(forms: list[LocalModel]) -> LocalModel | None:
    """What others are made from: the download, our own bf16, or what a GGUF file became."""
    return (
        next((form for form in forms if form.source == "hub"), None)
        or next((form for form in forms if form.variant == "BF16"), None)
        or next((form for form in forms if form.source == "ours" and is_imported(form.path)), None)
    )


def _best(forms: list[LocalModel], advised_bits: int) -> LocalModel | None:
    advised = variant_of_bits(advised_bits)
    order = [advised, *(v for v in ("INT8", "INT5", "INT4", "INT3", "BF16") if v != advised)]
    known = [form for form in forms if form.variant in order]
    return min(known, key=lambda form: order.index(form.variant), default=None)


def _not_installed(
    ref: str, name: str, reference: Reference, forms: list[LocalModel], *, alias: bool, offline: bool
) -> NotFound:
    original = next((form for form in forms if form.variant == "BF16"), None)
    near = _nearest(ref, name)
    if (begun := find_unfinished(ref)) is not None:
        return NotFound(
            f"`{ref}` was begun and never finished",
            hint=f"{_goes_on(begun)} goes on with it; `localinfer rm {begun.ref}` deletes what is there",
        )
    if reference.variant not in (None, "BF16") and original is not None:
        bits = str(reference.variant).removeprefix("INT")
        hint = f"make it with `localinfer quantize {original.ref} --bits {bits}`"
    elif reference.variant is None and forms:
        hint = f"the original is not here, but `localinfer run {forms[0].ref}` works"
    elif alias:
        hint = f"run `localinfer pull {reference.name}`"
    elif "/" not in name:
        hint = "type `localinfer list` for what is here, or give a name like `org/name`"
        hint = f"did you mean `{near}`? `localinfer list` shows what is here" if near else hint
    elif offline:
        hint = f"go online and run `localinfer pull {name}`"
    else:
        wanted = f"@{reference.revision}" if reference.revision else ""
        hint = f"run `localinfer pull {name}{wanted}`"
        hint += f", or did you mean `{near}`?" if near else ""
    return NotFound(f"`{ref}` is not on this machine", hint=hint)


def suggest(error: LocalInferError, ref: str) -> None:
    """Put what `ref` may be a misspelling of before the hint of an error of the Hub."""
    reference = parse(ref)
    if reference.path is not None or catalogue.find(reference.name) is not None:
        return
    if near := _nearest(ref, reference.name):
        error.hint = f"did you mean `{near}`? Else {error.hint}"


def _goes_on(begun: Unfinished) -> str:
    return f"`localinfer pull {begun.name}`" if begun.source == "hub" else "the command that began it"


def _nearest(ref: str, name: str) -> str:
    """What is here, or in the catalogue, and is written most like `ref`, which is nothing; "" if nothing is."""
    installed = list_models()
    known = {model.ref.lower(): model.ref for model in installed}
    for model in installed:  # `tiny` may mean `me/tiny`
        for word in (model.name, model.name.rpartition("/")[2]):
            known.setdefault(word.lower(), model.ref)
    known |= {word.lower(): word for pair in catalogue.aliases().items() for word in pair}
    known.pop(name.lower(), None)
    for word in (ref, name):
        if near := get_close_matches(word.lower(), known, n=1, cutoff=0.75):
            return known[near[0]]
    return ""


def _local(ref: str, path: Path) -> LocalModel:
    if path.is_dir():
        return _directory(ref, path)
    if not path.exists():
        raise NotFound(f"no such file: {path}", hint="check the path, or type `localinfer list` to see what is here")
    if not path.is_file() or path.suffix.lower() != ".gguf":
        raise NotFound(f"{path} is not a model", hint="give a directory with a `config.json`, or a `.gguf` file")
    status = path.stat()
    return LocalModel(
        ref=ref,
        name=path.stem,
        variant="GGUF",
        path=path.absolute(),
        kind="gguf",
        revision=None,
        size_bytes=status.st_size,
        modified=status.st_mtime,
    )


def _directory(ref: str, path: Path) -> LocalModel:
    missing = missing_file(path)
    if missing == "config.json":
        raise NotFound(f"{path} has no `config.json`", hint="give the directory that holds the model's files")
    if missing == SINGLE and any(file.suffix.lower() in PICKLES for file in path.iterdir()):
        raise NotSupported(
            f"{path} has pickled weights only, which can run code and are never opened",
            hint="use a repository with .safetensors files",
        )
    if missing is not None:
        raise Corrupt(f"{path} lacks `{missing[:80]}`", hint="copy or download the missing file")
    return LocalModel(
        ref=ref,
        name=path.resolve().name,
        variant=variant_of(path),
        path=path.absolute(),
        kind="checkpoint",
        revision=recorded_revision(path),
        size_bytes=size_on_disk(path),
        modified=path.stat().st_mtime,
    )
