"""Names of models where room is short: the organisation goes first, the width of the weights never."""

from rich.cells import cell_len, set_cell_size

from localinfer.hub.model import VARIANTS
from localinfer.text import one_line


def name_cells(width: int) -> int:
    """The longest name of a model in a table on a screen so wide."""
    return 28 if width >= 100 else 20


def model_label(ref: str, bits: str, room: int, *, spare: int = 0) -> str:
    """`ref` in at most `room` cells: `org/name@revision:INT4`, `name@revision:INT4`, `name:INT4`, `na…:INT4`.

    `bits` is the width of the weights where the engine has told it, and else empty; it is added where the name does
    not say it. The organisation is shown where `spare` cells stay free beside it.
    """
    base, width = _taken_apart(one_line(ref, 400), one_line(bits, 20))
    name = base.rstrip("/").rpartition("/")[2]
    if name in VARIANTS:  # a directory that is named after its width
        name = "/".join(base.rstrip("/").split("/")[-2:])
    if cell_len(base + width) + spare <= room:
        return base + width
    for shorter in (name, name.partition("@")[0]):
        if cell_len(shorter + width) <= room:
            return shorter + width
    return _cut(shorter, max(2, room - cell_len(width))) + width


def cut_label(text: str, room: int) -> str:
    """`text` in at most `room` cells; what is cut out stands before the width of the weights, if it ends with one."""
    base, width = _taken_apart(text, "")
    return text if cell_len(text) <= room else _cut(base, max(2, room - cell_len(width))) + width


def _taken_apart(ref: str, bits: str) -> tuple[str, str]:
    """The name, and `:WIDTH` after it; empty where it is not known, or the name ends with it."""
    base, colon, width = ref.rpartition(":")
    if colon and width.upper() in VARIANTS:
        return base, f":{width}"
    known = not bits or ref.rstrip("/").removesuffix(".gguf").upper().endswith(bits.upper())
    return ref, "" if known else f":{bits}"


def _cut(text: str, room: int) -> str:
    return text if cell_len(text) <= room else set_cell_size(text, room - 1).rstrip() + "…"
