"""`docs/guides/models.md`: the families that run, and which models of the catalogue fit where, at which width."""

import json
import struct
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

from localinfer.bench.measured import forms_of
from localinfer.cost.fit import HUGE_PAGE, context_of, estimate
from localinfer.formats.gguf_forms import FORMS
from localinfer.graph.families.wrapped import text_name
from localinfer.graph.registry import family_for, known_families, read_graph
from localinfer.graph.weights import Checkpoint
from localinfer.hub.catalogue import Entry, entries
from localinfer.quantize.export_names import ALIKE

MACHINES = (8, 16, 32)
"""GiB of memory."""

OTHERS = 2
"""GiB that the system and other programs have."""

_HEAD = """# Models

Made from the registry of families and from `models/*.toml` by `python -m localinfer.cli.generate`;
a test fails when it is not current.

## Families

What `model_type` of config.json may be, and what llama.cpp calls it in a GGUF file, from which
`import` and to which `export` translate. Mixtures of experts, models with recurrent layers (LFM2,
Qwen3.5, Qwen3-Next, OLMo-Hybrid, Granite 4, Falcon-H1, Nemotron-H) and Muse Glimmer run on
processors only. Any other `model_type` is refused by name: MiniCPM3, say, and others with latent
attention (MLA). So is what a family's config.json says and we do not run: every field that
transformers knows is tried with other values (`python -m tools.proofs.config_sweep`).

| `model_type` | models | in GGUF |
|---|---|---|
"""
_TESTED = """
Every family is tested with tiny models of random weights in several configurations: the same greedy
tokens and scores as `transformers` in float32, the same bits on all kernel sets and in batches
(`pytest tests/graph tests/reference`), and, for those with a name in GGUF, the same tokens as
llama.cpp from the exported file (`pytest tests/quantize/test_export_families.py`). Weights of a
published model take part where a package ships them: `own weights` below (`pytest
tests/starter`). Of the others `shape` says that the shape's weights were counted, no more.

## What fits

The widest form that fits into a machine's memory, by the arithmetic of `localinfer fit`: one
sequence of the context named, an 8-bit cache, and {others} GiB for the system and other programs.
INT8, INT4 and INT3 are what `quantize` makes.

"""
_GATED = "Gated models ask for a licence on their page on the Hub, and for a token.\n"


def models_page() -> str:
    """The whole page."""
    families = "".join(f"| `{name}` | {_said(name)} | {_gguf_name(name)} |\n" for name in known_families())
    return _HEAD + families + _TESTED.format(others=OTHERS) + "".join(_sizes()) + "\n" + _GATED


def _said(model_type: str) -> str:
    """What the family's file says it is: its first words, up to a colon."""
    text = sys.modules[family_for(model_type).spec.__module__].__doc__ or ""
    return " ".join(text.split(":")[0].split()).rstrip(".")


def _gguf_name(model_type: str) -> str:
    name = ALIKE.get(model_type, model_type)
    if name in FORMS:
        return f"`{FORMS[name].arch}`"
    inner = f"{name}_text"
    wraps = not name.endswith("_text") and family_for(name).tensor_name is text_name
    half = ALIKE.get(inner, inner) in FORMS if inner in known_families() else wraps
    return "by its text half's type" if half else "not known"


def _sizes() -> Iterator[str]:
    columns = " | ".join(f"{memory} GB" for memory in MACHINES)
    yield f"| model | family | weights | context | {columns} | tested | licence |\n"
    yield "|---|---|--:|--:|" + "---|" * len(MACHINES) + "---|---|\n"
    for entry in entries():
        yield _row(entry)


def _row(entry: Entry) -> str:
    with TemporaryDirectory(prefix="localinfer-models-") as folder:
        write_headers(entry, Path(folder))
        checkpoint = Checkpoint(Path(folder))
        fits = " | ".join(_widest(checkpoint, memory) for memory in MACHINES)
        context = context_of(checkpoint)
    tested = "own weights" if entry.package else "shape"
    licence = entry.licence + (", gated" if entry.gated else "")
    name = f"`{entry.aliases[0]}` ({entry.repo})"
    family = f"`{entry.shape['model_type']}`"
    return f"| {name} | {family} | {entry.parameters / 1e9:.2f} B | {context} | {fits} | {tested} | {licence} |\n"


def _widest(checkpoint: Checkpoint, memory: int) -> str:
    free = (memory - OTHERS) << 30
    for one in forms_of(checkpoint, "BF16"):
        if estimate(checkpoint, free_bytes=free, form=one.form, page_bytes=HUGE_PAGE).fits:
            return one.word
    return "none"


def write_headers(entry: Entry, folder: Path) -> None:
    """A checkpoint of the model's shape in `folder`, whose file of weights is a header and a hole."""
    graph = read_graph(entry.shape)
    shapes = {f"{one.name}.weight": (one.rows, one.cols) for one in graph.linears()} | dict(graph.vectors())
    header, at = {}, 0
    for name, shape in shapes.items():
        end = at + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, end]}
        at = end
    data = json.dumps(header).encode()
    data += b" " * (-len(data) % 8)
    (folder / "config.json").write_text(json.dumps(entry.shape), encoding="utf-8")
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(data)) + data)
        file.truncate(8 + len(data) + at)
