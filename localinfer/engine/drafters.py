"""Drafters that were trained on this machine, as files: one folder a model, whatever the width it is quantized to."""

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.engine.draft_early import ExitAdapter
from localinfer.engine.draft_head import WINDOW, HeadDraftRunner, Inputs
from localinfer.errors import Corrupt, LocalInferError
from localinfer.formats.durable import write_json
from localinfer.formats.json_files import TOKENIZER_LIMIT, read_bytes, read_object
from localinfer.formats.safetensors import SafetensorsFile, write_safetensors
from localinfer.graph.prepared import head_norm
from localinfer.graph.program import Move
from localinfer.graph.rope import Rope
from localinfer.graph.spec import ModelSpec
from localinfer.graph.stored import AffineLinear, Bf16Linear, Mxfp4Linear, StoredLinear, require_finite
from localinfer.graph.weights import Checkpoint
from localinfer.paths import drafters_dir

FORMAT = 1
GROUP = 32
"""Of the integers of a head, which have 8 bits."""

MATRICES = ("mix", "q", "k", "v", "o", "gate", "up", "down")
VECTORS = ("gains", "attention_norm", "mlp_norm")
_HINT = "`localinfer draft rm` it and train it again"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Trained:
    """What is known of one drafter; `drafter.json` holds the same."""

    model: str
    """The model it was trained on, as it was called."""
    kind: str
    """`head` or `early`."""
    key: str
    made: float
    """Seconds since 1970."""
    tokens: int
    """Tokens it was trained on, each pass counted."""
    seconds: float
    acceptance: tuple[float, ...]
    """Of guesses on held-out text, by position, those before being right."""
    predicted: float
    """Times as fast as without drafts, by these and this machine's step times."""
    size_bytes: int = 0


def key_of(target: Checkpoint) -> str:
    """What a drafter is for: the same for all widths of a model, another for other weights or another tokenizer."""
    spec, head = target.spec, target.graph.head
    told = repr((spec.model_type, spec.hidden_size, spec.layers, spec.heads, spec.kv_heads, spec.vocab_size))
    digest = hashlib.sha256(told.encode())
    digest.update(read_bytes(target.path / "tokenizer.json", TOKENIZER_LIMIT))
    digest.update(target.vector(f"{head.norm.name}.weight").tobytes())
    return digest.hexdigest()[:24]


def key_of_model(path: Path) -> str:
    """The same for the model at `path`."""
    return key_of(Checkpoint(path))


def folder_of(key: str, kind: str) -> Path:
    """Where the drafter of that kind for a model lies."""
    return drafters_dir() / f"{key}-{kind}"


def known() -> Iterator[tuple[Trained, Path]]:
    """All drafters that are here. Raises `Corrupt` for one whose description cannot be read."""
    for path in sorted(drafters_dir().glob("*/drafter.json")):
        yield _described(path), path.parent


def write(trained: Trained, arrays: Arrays) -> Path:
    """Keep a drafter, instead of an older one of its kind."""
    folder = folder_of(trained.key, trained.kind)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True, mode=0o700)
    forms = {"int32": "I32", "float16": "F16", "float32": "F32"}
    write_safetensors(
        partial / "weights.safetensors", {name: (forms[str(a.dtype)], a) for name, a in sorted(arrays.items())}
    )
    size = (partial / "weights.safetensors").stat().st_size
    write_json(partial / "drafter.json", {"format": FORMAT, **asdict(trained), "size_bytes": size})
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def remove(folder: Path) -> None:
    """Delete a drafter."""
    shutil.rmtree(folder)


def load_head(
    target: Checkpoint,
    program: native.Program,
    *,
    parallel: int,
    threads: int,
    isa: str,
    move: Move | None = None,
) -> HeadDraftRunner | None:
    """The head for `target`, which `program` runs, if there is one. Raises `Corrupt` for one that makes no sense."""
    folder = folder_of(key_of(target), "head")
    if not (folder / "drafter.json").exists():
        return None
    _described(folder / "drafter.json")
    arrays = _arrays(folder, target, "head")
    return make_head(arrays, target, program, parallel=parallel, threads=threads, isa=isa, move=move)


def make_head(
    arrays: Arrays,
    target: Checkpoint,
    program: native.Program,
    *,
    parallel: int,
    threads: int,
    isa: str,
    move: Move | None = None,
) -> HeadDraftRunner:
    """A head of these arrays: integers and scales of `MATRICES`, `VECTORS`, and `ids`. `move` takes it to where the
    target runs."""
    spec, ids = target.spec, arrays["ids"]

    def packed(*names: str, interleave: bool = False) -> native.Weight:
        pairs = [(arrays[name], arrays[f"{name}_scale"]) for name in names]
        return native.pack_int(8, GROUP, pairs, interleave=interleave, threads=threads, activation_bits=8)

    made = native.Program(spec.hidden_size, threads=threads, isa=isa, max_rows=128)
    rope = head_rope(spec)
    table = made.rope_table(np.array(rope.frequencies(WINDOW), np.float64), WINDOW, rope.attention_factor)
    made.mix(packed("mix"))
    made.attend(
        norm=arrays["attention_norm"],
        eps=spec.norm_eps,
        qkv=packed("q", "k", "v"),
        bias=None,
        q_norm=None,
        k_norm=None,
        o=packed("o"),
        o_bias=None,
        post_norm=None,
        heads=spec.heads,
        kv_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        rope=table,
        scale=spec.head_dim**-0.5,
    )
    made.gated_mlp(
        norm=arrays["mlp_norm"],
        eps=spec.norm_eps,
        gate_up=packed("gate", "up", interleave=True),
        activation=spec.activation,
        down=packed("down"),
    )
    head = target.graph.head
    norm, bias = head_norm(target, head)
    made.head(norm, head.norm.eps, _rows(target.linear(head.table.name), ids, threads), head.softcap, bias)
    if move is not None:
        move(made)
    made.make_kv(parallel * WINDOW // 32, 8)
    return HeadDraftRunner(made, program, ids, Inputs(arrays["gains"]), parallel=parallel)


def head_rope(spec: ModelSpec) -> Rope:
    """How the head turns its queries and keys: as the last layer does, halves together."""
    return replace(spec.ropes[-1], interleaved=False)


def load_adapter(target: Checkpoint) -> ExitAdapter | None:
    """The exit adapter for `target`, if there is one. Raises `Corrupt` for one that makes no sense."""
    folder = folder_of(key_of(target), "early")
    if not (folder / "drafter.json").exists():
        return None
    arrays = _arrays(folder, target, "early")
    return ExitAdapter(int(arrays["layers"][0]), arrays["down"], arrays["up"])


def shapes_of(target: Checkpoint, width: int) -> dict[str, tuple[int, int]]:
    """Rows and columns of the head's matrices, with `width` hidden values in its MLP."""
    spec = target.spec
    hidden, q, kv = spec.hidden_size, spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    return {
        "mix": (hidden, 2 * hidden),
        "q": (q, hidden),
        "k": (kv, hidden),
        "v": (kv, hidden),
        "o": (hidden, q),
        "gate": (width, hidden),
        "up": (width, hidden),
        "down": (hidden, width),
    }


def _rows(matrix: StoredLinear, ids: NDArray[np.int32], threads: int) -> native.Weight:
    """Some rows of the target's head, as it has them."""
    if isinstance(matrix, Bf16Linear):
        return native.pack_bf16([np.ascontiguousarray(matrix.values[ids])], threads=threads)
    if isinstance(matrix, AffineLinear):
        some = matrix.rows_in(ids.astype(np.intp)).arrays()
        return native.pack_affine(matrix.group, matrix.wide, [some], threads=threads, bits=matrix.bits)
    if isinstance(matrix, Mxfp4Linear):
        return native.pack_mxfp4([matrix.rows_in(ids.astype(np.intp)).arrays()], threads=threads)
    part = (np.ascontiguousarray(matrix.packed[ids]), np.ascontiguousarray(matrix.scales[ids]))
    return native.pack_int(matrix.bits, matrix.group, [part], threads=threads, activation_bits=8)


def _arrays(folder: Path, target: Checkpoint, kind: str) -> Arrays:
    """The tensors of a drafter, all shapes checked before one is read."""
    try:
        file = SafetensorsFile(folder / "weights.safetensors")
    except Corrupt as error:
        raise Corrupt(error.message, hint=_HINT) from None
    shapes = {name: info.shape for name, info in file.tensors.items()}
    hidden = target.spec.hidden_size
    if kind == "early":
        rank = shapes.get("down", (0, 0))[0]
        wanted: dict[str, tuple[int, ...]] = {"layers": (1,), "down": (rank, hidden), "up": (hidden, rank)}
    else:
        width = next(iter(shapes.get("gate", (0,))))
        wanted = dict.fromkeys(("attention_norm", "mlp_norm"), (hidden,))
        wanted |= {"gains": (2, hidden), "ids": shapes.get("ids", (0,))[:1]}
        for name, (rows, columns) in shapes_of(target, width).items():
            wanted |= {name: (rows, columns // 4), f"{name}_scale": (rows, columns // GROUP)}
    if shapes != wanted:
        odd = sorted(name for name in {*shapes, *wanted} if shapes.get(name) != wanted.get(name))
        raise Corrupt(f"{file.path}: tensor `{odd[0]}` is {shapes.get(odd[0])}, not {wanted.get(odd[0])}", hint=_HINT)
    arrays = {name: file.read(name) for name in file.tensors}
    for name, values in arrays.items():
        if values.dtype.kind == "f":
            require_finite(name, values)
    _check_numbers(arrays, target, file.path)
    return arrays


def _check_numbers(arrays: Arrays, target: Checkpoint, path: Path) -> None:
    if "ids" in arrays:
        ids = arrays["ids"]
        if ids.dtype != np.int32 or not len(ids) or np.any(np.diff(ids) <= 0):
            raise Corrupt(f"{path}: the token ids do not ascend", hint=_HINT)
        if not 0 <= int(ids[0]) <= int(ids[-1]) < target.spec.vocab_size:
            raise Corrupt(f"{path}: token {int(ids[-1])} is not below {target.spec.vocab_size}", hint=_HINT)
    if "layers" in arrays and not 0 < int(arrays["layers"][0]) < target.spec.layers:
        raise Corrupt(f"{path}: exits after layer {int(arrays['layers'][0])} of {target.spec.layers}", hint=_HINT)


def _described(path: Path) -> Trained:
    try:
        values = read_object(path)
        if values.pop("format", None) != FORMAT:
            raise ValueError("another format")
        return Trained(**(values | {"acceptance": tuple(map(float, values["acceptance"]))}))
    except (TypeError, ValueError, KeyError) as error:
        raise Corrupt(f"{path}: describes no drafter ({error})", hint=f"remove {path.parent}") from error
    except LocalInferError as error:
        raise Corrupt(error.message, hint=f"remove {path.parent}") from error
