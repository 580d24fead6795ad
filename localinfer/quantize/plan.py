"""What `quantize` will do, decided from headers alone: which tensors, how many bits, which groups, which file."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any, Final, Literal, get_args

from numpy.typing import NDArray

from localinfer.errors import NotSupported, UsageError
from localinfer.extras import install_command
from localinfer.formats.checkpoint_files import StoredTensor
from localinfer.formats.compressed import packed_words, quantization_config
from localinfer.graph.graph import Graph
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.origin import trained_for_q4_0
from localinfer.quantize.torch_installed import has_torch

GROUPS = (32, 64, 128)
FLOAT_BITS: Final = 16
TABLE_BITS: Final = 8
TABLES = ("model.embed_tokens", "lm_head", "model.embed_tokens_per_layer")
"""Embedding, head and the table of inputs by layer, which get `TABLE_BITS`."""

HEAD = "lm_head"

HeadBits = Literal[16, 8, 5, 4]
"""Bits of the head: 16 leaves its floats, and with them the embedding's where both are one matrix. With 5 or 4 a head
that is the embedding's matrix becomes one of its own, and the embedding stays as the table that it is for lookups."""

Method = Literal["rtn", "imatrix", "awq", "gptq", "awq+gptq"]
METHODS: tuple[Method, ...] = get_args(Method)
"""How integers are chosen: `rtn` looks at the weights alone, all others at what calibration text does in them too."""

MIXED_BITS = 3
"""At this width a mix of the same bytes loses a fifth less, and is the default."""

TRAINED = (4, 32)
"""Bits and group that training for Q4_0 takes."""

LARGE_MODEL = 4_000_000_000
"""From this many weights on, groups of 64 cost less quality than their bytes are worth."""

_KEPT = "the layers are rounded to the grid of Q4_0, for which this model was trained"
_LOST = "this model was trained for the grid of Q4_0, and that training is lost: `--bits 4` alone keeps it"

_LAYER = re.compile(r"\.layers\.(\d+)\.")
_EXPERT = re.compile(r"experts\\\.\d+\\\.")
_BODY = r"re:.*\.layers\.\d+\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj$"
_OTHER_PARTS = ("re:.*vision.*", "re:.*visual.*", "re:.*audio.*", "re:.*multi_modal.*", "re:^mtp.*")


@dataclass(frozen=True, slots=True)
class Copy(StoredTensor):
    """A tensor that is to be stored under another name as well."""

    of: StoredTensor

    def read(self) -> NDArray[Any]:
        return self.of.read()

    def read_rows(self, first: int, last: int | None) -> NDArray[Any]:
        return self.of.read_rows(first, last)


@dataclass(frozen=True, slots=True)
class Job:
    """One stored tensor: quantized to `bits` by `group`, or copied as it is (bits 0)."""

    tensor: StoredTensor
    bits: int = 0
    group: int = 0
    trained: bool = False
    """Rounded to the grid that it was trained for, which is Q4_0's."""

    @property
    def module(self) -> str:
        return self.tensor.name.removesuffix(".weight")

    @property
    def weights(self) -> int:
        count = 1
        for size in self.tensor.info.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        """Bytes it will take in the new file."""
        if not self.bits:
            return self.tensor.info.nbytes
        rows, columns = self.tensor.info.shape
        return rows * (4 * packed_words(columns, self.bits) + 2 * (columns // self.group)) + 16


@dataclass(frozen=True, slots=True)
class Plan:
    """One list of jobs for each file to write, and what config.json will say of them."""

    units: tuple[tuple[Job, ...], ...]
    config: dict[str, Any]
    """What config.json says of it otherwise than the source's."""
    bits: int
    group: int
    table_group: int
    head: HeadBits
    layers: int
    method: Method
    mixed: bool
    notes: tuple[str, ...]

    @property
    def jobs(self) -> list[Job]:
        return [job for unit in self.units for job in unit]

    @property
    def weights(self) -> int:
        return sum(job.weights for job in self.jobs)

    @property
    def nbytes(self) -> int:
        return sum(job.nbytes for job in self.jobs)

    def file_name(self, unit: int) -> str:
        return f"model-{unit + 1:05d}-of-{len(self.units):05d}.safetensors"


def default_method(bits: int, source: Path) -> tuple[Method, str]:
    """The method that loses least at that width, and a remark if it is not the one we would take."""
    if bits == TABLE_BITS:
        return "rtn", ""  # others gain nothing that can be measured
    if bits == TRAINED[0] and trained_for_q4_0(source):
        return "rtn", ""  # the plan says why
    lacking = Checkpoint(source).graph.not_calibrated
    if lacking:
        return "rtn", f"rounded without calibration: no method of ours calibrates {lacking}"
    if not has_torch():
        return (
            "imatrix",
            f"calibrated by imatrix, as torch is not installed: less is lost after `{install_command('quantize')}`",
        )
    return "gptq", ""


def make_plan(
    source: Path,
    bits: int,
    group: int | None,
    method: Method = "rtn",
    mix: Mapping[str, tuple[int, int]] | None = None,
    head: HeadBits = TABLE_BITS,
) -> Plan:
    """Read the headers of `source` and plan. `group` None: chosen, and said in `notes` if not the usual one. `mix`
    gives (bits, group) for each matrix of the layers; matrices that are loaded as one must have the same.

    Raises `UsageError` for a group that does not divide every matrix, `NotSupported` for a quantized source, and all
    that opening a checkpoint raises.
    """
    checkpoint = Checkpoint(source)
    if checkpoint.scheme.method != "none":
        raise NotSupported(f"{source}: is quantized already", hint="quantize the original model")
    lacking = checkpoint.graph.not_calibrated
    if lacking and (method != "rtn" or mix):
        raise NotSupported(
            f"{method if not mix else 'mixed bits'}: {lacking} is rounded without calibration only",
            hint="use `--method rtn`, with one width for all layers",
        )
    body = body_of(checkpoint.graph)
    trained, told = _keeps_training(source, bits, group, plain=method == "rtn" and not mix)
    chosen, table_group, notes = choose_groups(checkpoint.graph, bits, TRAINED[1] if trained else group)
    tied, table = checkpoint.spec.tied, (TABLE_BITS, table_group)
    forms = _table_forms(head, chosen, table_group, tied=tied)
    ahead = _ahead_of(checkpoint, table_group)
    others = any(name is None for name in checkpoint.names.values())
    jobs: list[tuple[tuple[int, int], Job]] = []
    for stored, tensor in sorted(checkpoint.stored.items()):
        name = checkpoint.names[stored]
        module = _module(name or "")
        if module == HEAD and tied:
            continue  # a copy of the embedding
        where = _layer_of(name)
        if name is not None and module in body:
            jobs.append((where, Job(tensor, *(mix[module] if mix else (bits, chosen)), trained=trained)))
        elif name is not None and module in TABLES:
            jobs.append((where, Job(tensor, *forms[module])))
            if module == TABLES[0] and tied and head < TABLE_BITS:
                jobs.append((_layer_of(f"{HEAD}.weight"), Job(_as_head(tensor), *forms[HEAD])))
        else:
            jobs.append((where, Job(tensor, *(table if _module(stored) in ahead else (0, 0)))))
    folders = sorted({where for where, _ in jobs})
    parts = [one for one in _OTHER_PARTS if not (ahead and "mtp" in one)] if others else []
    said = describe(checkpoint.graph, (bits, chosen), table, parts, mix, forms[HEAD], ahead)
    return Plan(
        units=tuple(tuple(job for at, job in jobs if at == where) for where in folders),
        config={"quantization_config": said} | _untied(checkpoint, apart=head < TABLE_BITS),
        bits=bits,
        group=chosen,
        table_group=table_group,
        head=head,
        layers=checkpoint.spec.layers,
        method=method,
        mixed=mix is not None,
        notes=(*notes, *told),
    )


def _ahead_of(checkpoint: Checkpoint, group: int) -> list[str]:
    """The matrices of the head that guesses tokens ahead which get 8 bits, by the names they are stored under; none
    where `group` does not divide all of them."""
    if not checkpoint.has_ahead:
        return []
    head = Checkpoint(checkpoint.path, ahead=True)
    body = body_of(head.graph)
    if any(columns % group for columns in body.values()):
        return []
    modules = (_module(name) for name, ours in head.names.items() if ours and _module(ours) in body)
    return sorted(modules)


def _module(name: str) -> str:
    return name.removesuffix(".weight")


def _keeps_training(source: Path, bits: int, group: int | None, *, plain: bool) -> tuple[bool, list[str]]:
    """Whether the layers are rounded to a grid that they were trained for, and what to say of that."""
    if bits != TRAINED[0] or not trained_for_q4_0(source):
        return False, []
    kept = plain and group in (None, TRAINED[1])
    return kept, [_KEPT if kept else _LOST]


def _as_head(table: StoredTensor) -> Copy:
    """The embedding, to be stored as the head."""
    part = "language_model." if table.name.startswith("language_model.") else ""
    return Copy(table.file, f"{part}{HEAD}.weight", table.info, table)


def graph_name(checkpoint: Checkpoint, job: Job) -> str:
    """The graph's name of the tensor that `job` writes; "" of what is no part of the graph."""
    if isinstance(job.tensor, Copy):
        return f"{HEAD}.weight"
    return checkpoint.names[job.tensor.name] or ""


def _table_forms(head: HeadBits, group: int, table_group: int, *, tied: bool) -> dict[str, tuple[int, int]]:
    """(bits, group) of each of `TABLES`; no bits leave it as it is."""
    table = (TABLE_BITS, table_group)
    forms = dict.fromkeys(TABLES, table) | {HEAD: {FLOAT_BITS: (0, 0), TABLE_BITS: table}.get(head, (head, group))}
    return forms | ({TABLES[0]: forms[HEAD]} if tied and head == FLOAT_BITS else {})


def _untied(checkpoint: Checkpoint, *, apart: bool) -> dict[str, bool]:
    """What config.json says of a head that has a matrix of its own, though the source's may say otherwise."""
    if not checkpoint.own_head and not (apart and checkpoint.spec.tied):
        return {}
    said = ("tie_word_embeddings", *(("tie_embedding",) if "tie_embedding" in checkpoint.config else ()))
    return dict.fromkeys(said, False)


def body_of(graph: Graph) -> dict[str, int]:
    """The columns of every matrix of the layers that is quantized, by name."""
    kept = graph.unquantized
    return {one.name: one.cols for one in graph.linears() if one.name not in TABLES and one not in kept}


def choose_groups(graph: Graph, bits: int, group: int | None) -> tuple[int, int, list[str]]:
    """The group of the layers, that of embedding and head, and what is unusual about them.

    Raises `UsageError` for a group that does not divide every matrix.
    """
    chosen, notes = _choose_group(body_of(graph), bits, group, graph.parameters())
    columns = gcd(*(table.cols for table in graph.tables))
    return chosen, chosen if bits == TABLE_BITS else _table_group(columns), notes


def describe(
    graph: Graph,
    body: tuple[int, int],
    tables: tuple[int, int],
    ignored: Sequence[str] = (),
    mix: Mapping[str, tuple[int, int]] | None = None,
    head: tuple[int, int] | None = None,
    ahead: Sequence[str] = (),
) -> dict[str, Any]:
    """What config.json says of layers in `body` and of embedding and head in `tables`, each (bits, group), or of a head
    in another form than the embedding; no bits are floats. `ahead`: more matrices, in the form of the tables."""
    tied, names = graph.spec.tied, body_of(graph)
    bodies: list[tuple[list[str], int, int]] = [(_targets(names), *body)]
    ignored = [*ignored, *(_targets(one.name for one in graph.unquantized) if graph.unquantized else ())]
    if mix:
        by_form = {form: _named(name for name in mix if mix[name] == form) for form in sorted({*mix.values()})}
        bodies = [(by_form[form], *form) for form in by_form]
    head = head or tables
    plain_table = tied and not head[0]
    targets = [] if plain_table else ["re:.*embed_tokens$"]
    targets += ["re:.*lm_head$"] if head == tables and not tied else []
    targets += ["re:.*embed_tokens_per_layer$"] if graph.inputs is not None else []
    apart = [(["re:.*lm_head$"], *head)] if head[0] and head != tables else []
    whole = (["re:.*embed_tokens$"] if plain_table else []) + ([HEAD] if not head[0] or (tied and not apart) else [])
    bodies = [*([(_targets(ahead, whole=True), *tables)] if ahead else []), *bodies]
    return quantization_config([*bodies, *([(targets, *tables)] if targets else []), *apart], [*whole, *ignored])


def _targets(names: Iterable[str], *, whole: bool = False) -> list[str]:
    """Patterns of these modules' names, one for all layers and experts. `whole`: those alone whose name begins so."""
    names, number = list(names), r"\d+"
    patterns = sorted({f"re:{re.sub(number, lambda _: number, re.escape(name))}$" for name in names})
    return [_BODY] if patterns and not whole and all(re.fullmatch(_BODY[3:], name) for name in names) else patterns


def _named(names: Iterable[str]) -> list[str]:
    """Patterns of these names, one for all experts of a layer, which have one form."""
    every = r"experts\\.\\d+\\."
    return list(dict.fromkeys(f"re:.*{re.sub(_EXPERT, every, re.escape(name))}$" for name in names))


def _layer_of(name: str | None) -> tuple[int, int]:
    """Order of the files: the embedding, each layer, the rest, the head, what the graph does not use."""
    if name is None:
        return 4, 0
    layer = _LAYER.search(name)
    if layer:
        return 1, int(layer.group(1))
    return (0, 0) if name.startswith("model.embed_tokens") else (3, 0) if name.startswith("lm_head") else (2, 0)


def _choose_group(body: dict[str, int], bits: int, group: int | None, parameters: int) -> tuple[int, list[str]]:
    if group is not None:
        if group not in GROUPS:
            raise UsageError(f"group is {group}, but must be one of 32, 64, 128", hint="choose another --group")
        _must_divide(body, group)
        return group, []
    usual = 64 if parameters >= LARGE_MODEL else 32
    for candidate in (usual, 32):
        if all(columns % candidate == 0 for columns in body.values()):
            odd = next((name for name, columns in body.items() if columns % usual), "")
            why = f"groups of {candidate}: {usual} does not divide the {body.get(odd)} columns of `{odd}`"
            return candidate, [] if candidate == usual else [why]
    _must_divide(body, 32)
    raise AssertionError("unreachable")


def _must_divide(body: dict[str, int], group: int) -> None:
    for name, columns in body.items():
        if columns % group:
            fits = [str(size) for size in GROUPS if all(other % size == 0 for other in body.values())]
            raise UsageError(
                f"groups of {group} do not divide the {columns} columns of `{name}`",
                hint=f"use `--group {fits[-1]}`" if fits else "this model cannot be quantized; run it as it is",
            )


def _table_group(hidden: int) -> int:
    for group in (64, 32):
        if hidden % group == 0:
            return group
    raise UsageError(
        f"groups of 32 do not divide the {hidden} columns of `model.embed_tokens`",
        hint="this model cannot be quantized; run it as it is",
    )
