"""Words for the completion of shells, one a line. Loads neither Typer nor anything heavy."""

import re

from localinfer.cli.output import write
from localinfer.errors import LocalInferError

_PLAIN = re.compile(r"[^\W_][\w./:@-]*")
"""Names that no shell reads as anything else."""


def model_names() -> list[str]:
    """What may follow `run`: the aliases whose model is here or comes by itself, then every model on this machine."""
    from localinfer.hub import catalogue
    from localinfer.hub.cache import list_models

    installed = list_models()
    names = {model.name for model in installed}
    known = [alias for alias, repo in catalogue.aliases().items() if repo in names or alias == "starter"]
    return sorted({name for name in (*known, *(model.ref for model in installed)) if _PLAIN.fullmatch(name)})


def pullable_names() -> list[str]:
    """What may follow `pull`: every alias and repository of the catalogue."""
    from localinfer.hub import catalogue

    aliases = catalogue.aliases()
    return sorted({name for name in (*aliases, *aliases.values()) if _PLAIN.fullmatch(name)})


def show_names(words: list[str]) -> int:
    """`localinfer __complete models|pullable`: print the names. Silent on any trouble: someone is typing."""
    listing = {"models": model_names, "pullable": pullable_names}.get(words[0] if words else "")
    try:
        names = listing() if listing else []
    except (LocalInferError, OSError):
        names = []
    write("".join(f"{name}\n" for name in names))
    return 0
