"""Models that other tools quantized: the same numbers, the same answers as in our own form, and all damage named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer import native
from localinfer.errors import Corrupt, LocalInferError, NotSupported
from localinfer.formats.compressed import pack, quantization_config
from localinfer.formats.safetensors import write_safetensors
from localinfer.graph.memory import packed_bytes, weights_bytes
from localinfer.graph.stored import AffineLinear, Form, IntLinear, narrow, widen
from localinfer.graph.weights import Checkpoint
from tests.graph import foreign
from tests.graph.emulated import Emulated
from tests.graph.oracle import PROMPT, assert_close
from tests.graph.running import load, run
from tests.tiny import make_checkpoint

Make = Callable[[Path], foreign.Meaning]
Q = "model.layers.0.self_attn.q_proj"

WAYS: dict[str, tuple[Make, Form]] = {
    "gptq": (lambda path: foreign.gptq(path, 4, 32, symmetric=True, version=1), (4, 32)),
    "gptq v2": (lambda path: foreign.gptq(path, 4, 64, symmetric=True, version=2), (4, 64)),
    "gptq 3 bits": (lambda path: foreign.gptq(path, 3, 32, symmetric=True, version=1), (3, 32)),
    "gptq 8 bits": (lambda path: foreign.gptq(path, 8, 32, symmetric=True, version=1), (8, 32)),
    "gptq by rows": (lambda path: foreign.gptq(path, 4, 0, symmetric=True, version=1), (4, 64)),
    "gptq zeros": (lambda path: foreign.gptq(path, 4, 32, symmetric=False, version=1), (4, 32, 32)),
    "gptq v2 zeros": (lambda path: foreign.gptq(path, 4, 32, symmetric=False, version=2), (4, 32, 32)),
    "gptq 3 bits zeros": (lambda path: foreign.gptq(path, 3, 64, symmetric=False, version=1), (4, 64)),
    "awq": (lambda path: foreign.awq(path, 32), (4, 32, 32)),
    "awq by rows": (lambda path: foreign.awq(path, 0), (4, 64, 64)),
    "packed": (lambda path: foreign.compressed(path, 4, 32, symmetric=True), (4, 32)),
    "packed zeros": (lambda path: foreign.compressed(path, 4, 32, symmetric=False), (4, 32, 32)),
    "packed 3 bits zeros": (lambda path: foreign.compressed(path, 3, 64, symmetric=False), (4, 64)),
    "packed zeros by rows": (lambda path: foreign.compressed(path, 4, 0, symmetric=False), (4, 64, 64)),
    "packed plain zeros": (
        lambda path: foreign.compressed(path, 4, 32, symmetric=False, packed_zeros=False), (4, 32, 32)
    ),
    "packed 5 bits": (lambda path: foreign.compressed(path, 5, 32, symmetric=True), (5, 32)),
    "packed 5 bits zeros": (lambda path: foreign.compressed(path, 5, 64, symmetric=False), (5, 64, 64)),
    "packed by rows": (lambda path: foreign.compressed(path, 8, 0, symmetric=True), (8, 64)),
    "bytes": (lambda path: foreign.compressed(path, 8, 0, symmetric=True, form="int-quantized"), (8, 64)),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_integers_mean_what_they_meant(tmp_path: Path, way: str) -> None:
    make, form = WAYS[way]
    path = make_checkpoint(tmp_path / "m", "qwen2")
    meaning = make(path)
    checkpoint = Checkpoint(path)
    assert checkpoint.form(Q) == form
    for name, matrix in meaning.items():
        assert np.array_equal(checkpoint.matrix(name), matrix)
        assert checkpoint.stored_bytes(name) <= checkpoint.reading_bytes(name)
    wider = ("3-bit weights with zero points are held as INT4, exactly",)
    assert checkpoint.notes == (wider if "3 bits zeros" in way else ())


@pytest.mark.parametrize("said", [{}, {"checkpoint_format": "gptq"}], ids=str)
def test_symmetric_zeros_tell_gptq_s_second_version(tmp_path: Path, said: dict[str, str]) -> None:
    path = make_checkpoint(tmp_path / "m", "qwen2")
    meaning = foreign.gptq(path, 4, 32, symmetric=True, version=2)
    config = json.loads((path / "config.json").read_text())
    del config["quantization_config"]["checkpoint_format"]
    config["quantization_config"] |= said
    (path / "config.json").write_text(json.dumps(config))
    checkpoint = Checkpoint(path)
    for name, matrix in meaning.items():
        assert np.array_equal(checkpoint.matrix(name), matrix)
    (note,) = checkpoint.notes
    assert "second version" in note


@pytest.mark.parametrize("way", ["gptq", "gptq 3 bits zeros", "packed by rows", "bytes"])
def test_the_native_engine_gives_the_bits_of_our_own_form(tmp_path: Path, way: str) -> None:
    path = make_checkpoint(tmp_path / "m", "llama")
    WAYS[way][0](path)
    ours = twin(path, tmp_path / "ours")
    assert np.array_equal(run(load(path), PROMPT), run(load(ours), PROMPT))


@pytest.mark.parametrize("way", ["gptq zeros", "awq by rows", "packed zeros", "packed 5 bits zeros"])
def test_zero_points_run_at_their_own_bits(tmp_path: Path, way: str) -> None:
    """Against the executor with the native roundings: what is left is the order of sums."""
    path = make_checkpoint(tmp_path / "m", "llama")
    WAYS[way][0](path)
    program, checkpoint = load(path), Checkpoint(path)
    emulated = Emulated(checkpoint, 16).logits(PROMPT).numpy()
    assert_close(run(program, PROMPT)[:8], emulated[:8], 0.02)
    assert program.weight_bytes == weights_bytes(checkpoint) - 4 * checkpoint.graph.vector_values()
    q = next(linear for linear in checkpoint.graph.linears() if linear.name == Q)
    assert packed_bytes(q, *checkpoint.form(Q)) < 0.7 * packed_bytes(q, 8, checkpoint.form(Q)[1])
    for isa in native.supported_isas():
        assert np.array_equal(run(load(path, isa=isa), PROMPT), run(program, PROMPT))


@pytest.mark.parametrize("scaled", ["tensor", "row", "block"])
def test_eight_bit_floats_become_bfloat16(tmp_path: Path, scaled: str) -> None:
    path = make_checkpoint(tmp_path / "m", "qwen3")
    meaning = foreign.fp8(path, scaled)
    checkpoint = Checkpoint(path)
    assert checkpoint.form(Q) == (16, 0)
    assert len(checkpoint.notes) == 1
    assert "FP8" in checkpoint.notes[0]
    for name, matrix in meaning.items():
        assert np.array_equal(checkpoint.matrix(name), widen(narrow(name, matrix)))
    assert np.isfinite(run(load(path), PROMPT)).all()


def test_the_command_line_says_so(tmp_path: Path) -> None:
    from localinfer.config import EngineConfig
    from localinfer.engine.opening import open_engine

    path = make_checkpoint(tmp_path / "m", "llama")
    foreign.awq(path, 32)
    engine = open_engine(path, EngineConfig(context=64))
    assert engine.info.notes == ()
    assert engine.info.bits == "INT4"


def twin(path: Path, dest: Path) -> Path:
    """The same model in compressed-tensors' form, by the integers that the first one is read as."""
    checkpoint = Checkpoint(path)
    make_checkpoint(dest, checkpoint.spec.model_type)  # type: ignore[arg-type]
    tensors: foreign.Tensors = {}
    forms = set()
    for linear in checkpoint.graph.linears():
        form, matrix = checkpoint.form(linear.name), checkpoint.matrix(linear.name)
        if form[0] == 16:
            tensors[f"{linear.name}.weight"] = ("F32", matrix)
            continue
        stored = checkpoint.linear(linear.name)
        if isinstance(stored, AffineLinear):
            form, wider = (8, form[1]), stored.widened()
            assert wider is not None
            stored = wider
        assert isinstance(stored, IntLinear)
        forms.add(form[:2])
        scales = stored.scales
        groups = matrix.reshape(linear.rows, -1, form[1])
        q = np.rint(groups / np.where(scales == 0, 1, scales).astype(np.float32)[:, :, None]).astype(np.int8)
        tensors[f"{linear.name}.weight_packed"] = ("I32", pack(q.reshape(linear.rows, linear.cols), form[0]))
        tensors[f"{linear.name}.weight_scale"] = ("F16", scales)
        tensors[f"{linear.name}.weight_shape"] = ("I64", np.array([linear.rows, linear.cols], np.int64))
    for name, _ in checkpoint.graph.vectors():
        tensors[name] = ("F32", checkpoint.vector(name))
    write_safetensors(dest / "model.safetensors", tensors)
    foreign.resave(dest, **quantization_config([(["Linear"], *form) for form in forms]))
    return dest


def put(part: str, kind: str, values: NDArray[Any]) -> Callable[[foreign.Tensors], object]:
    return lambda tensors: tensors.update({f"{Q}.{part}": (kind, values)})


def spoil(part: str, place: tuple[int, ...], value: object) -> Callable[[foreign.Tensors], object]:
    def change(tensors: foreign.Tensors) -> None:
        tensors[f"{Q}.{part}"][1][place] = value

    return change


BROKEN: dict[str, tuple[str, Callable[[foreign.Tensors], object], type[LocalInferError], str]] = {
    "reordered": ("gptq", put("g_idx", "I32", np.arange(64)[::-1] // 32), NotSupported, "g_idx that reorders"),
    "g_idx large": ("gptq", put("g_idx", "I32", np.full(64, 2**31 - 1)), NotSupported, "g_idx that reorders"),
    "g_idx long": ("gptq", put("g_idx", "I32", np.zeros(65)), Corrupt, r"g_idx` is \[65\]"),
    "zero of 7": ("gptq", spoil("qzeros", (1, 0), 0x77777776), Corrupt, "a zero point of 7 at group 1 of row 0"),
    "words few": ("gptq", put("qweight", "I32", np.zeros((7, 64))), Corrupt, r"qweight` is \[7, 64\]"),
    "words of floats": ("gptq", put("qweight", "F32", np.zeros((8, 64))), NotSupported, "qweight` has dtype F32"),
    "zeros few": ("gptq", put("qzeros", "I32", np.zeros((2, 7))), Corrupt, r"qzeros` is \[2, 7\]"),
    "no zeros": ("gptq", lambda tensors: tensors.pop(f"{Q}.qzeros"), Corrupt, "qzeros` is missing"),
    "no scales": ("gptq", lambda tensors: tensors.pop(f"{Q}.scales"), Corrupt, "scales` is missing"),
    "scales of other groups": ("gptq", put("scales", "F16", np.ones((1, 64))), Corrupt, r"\[1, 64\].*4 bits by 32"),
    "scale inf": ("gptq", spoil("scales", (1, 5), np.inf), Corrupt, r"scales` holds NaN.*first at \[1, 5\]"),
    "a bias": ("gptq", spoil("bias", (3,), 1.0), NotSupported, r"q_proj.bias` belongs to a quantized matrix"),
    "a long bias": ("gptq", put("bias", "F16", np.zeros(65)), NotSupported, r"q_proj.bias` belongs"),
    "awq words": ("awq", put("qweight", "I32", np.zeros((64, 9))), Corrupt, r"qweight` is \[64, 9\]"),
    "awq zeros": ("awq", put("qzeros", "I32", np.zeros((1, 8))), Corrupt, r"qzeros` is \[1, 8\]"),
    "awq as gptq": ("awq", put("qweight", "I32", np.zeros((8, 64))), Corrupt, r"qweight` is \[8, 64\]"),
    "awq nan": ("awq", spoil("scales", (0, 0), np.nan), Corrupt, r"first at \[0, 0\]"),
    "packed zeros": ("packed zeros", put("weight_zero_point", "I32", np.zeros((9, 2))), Corrupt, r"is \[9, 2\]"),
    "no zero points": ("packed zeros", lambda t: t.pop(f"{Q}.weight_zero_point"), Corrupt, "zero_point` is missing"),
    "zero of 100": ("packed plain zeros", spoil("weight_zero_point", (0, 0), 100), Corrupt, "more than 4 bits"),
    "zero of -9": ("packed plain zeros", spoil("weight_zero_point", (0, 0), -9), Corrupt, "more than 4 bits"),
    "bytes' scales": ("bytes", put("weight_scale", "F16", np.ones((64, 2))), Corrupt, "8 bits by row"),
    "fp8 nan": ("fp8", spoil("weight", (3, 9), 0xFF), Corrupt, r"weight` holds NaN or infinity, first at \[3, 9\]"),
    "fp8 scale inf": ("fp8", spoil("weight_scale_inv", (1, 0), np.inf), Corrupt, r"first at \[1, 0\]"),
    "fp8 scale large": ("fp8", spoil("weight_scale_inv", (0, 0), 3e38), Corrupt, "holds NaN or infinity"),
    "fp8 blocks": ("fp8", put("weight_scale_inv", "F32", np.ones((3, 2))), Corrupt, r"is \[3, 2\].*\[2, 2\]"),
    "fp8 no scale": ("fp8", lambda tensors: tensors.pop(f"{Q}.weight_scale_inv"), Corrupt, "scale` is missing"),
}  # fmt: skip


@pytest.mark.parametrize(("way", "change", "error", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_damage_is_named(
    tmp_path: Path, way: str, change: Callable[[foreign.Tensors], object], error: type[LocalInferError], words: str
) -> None:
    path = make_checkpoint(tmp_path / "m", "llama")
    if way == "fp8":
        foreign.fp8(path, "block")
    else:
        WAYS[way][0](path)
    foreign.edit(path, change)
    with pytest.raises(error, match=words) as caught:
        load(path)
    assert caught.value.hint


def test_rows_that_no_group_divides(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", "llama", intermediate_size=80)
    foreign.compressed(path, 4, 0, symmetric=True)
    with pytest.raises(NotSupported, match="rows of 80 integers, which is no multiple of 32"):
        Checkpoint(path)


@pytest.mark.filterwarnings("ignore")  # of the library's own
@pytest.mark.parametrize(("bits", "group"), [(4, 32), (3, 64), (4, 0)])
def test_as_the_library_packs_zero_points(bits: int, group: int) -> None:
    """Both readers of the second writer's tensors give the same numbers."""
    torch = pytest.importorskip("torch")
    base = pytest.importorskip("compressed_tensors.compressors.pack_quantized.base")
    quantization = pytest.importorskip("compressed_tensors.quantization")
    matrix = np.random.default_rng(1).standard_normal((48, 64)).astype(np.float32)
    q, zeros, scales = foreign.grid(matrix, bits, group, symmetric=False)
    state = {
        "weight_packed": torch.from_numpy(foreign.words(q.reshape(48, 64), bits)),
        "weight_scale": torch.from_numpy(scales.astype(np.float32)),
        "weight_zero_point": torch.from_numpy(foreign.words(zeros.T, bits).T.copy()),
        "weight_shape": torch.tensor([48, 64]),
    }
    kind: dict[str, Any] = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    weights = quantization.QuantizationArgs(num_bits=bits, symmetric=False, **kind)
    scheme = quantization.QuantizationScheme(targets=["Linear"], weights=weights)
    seen = base.PackedQuantizationCompressor.decompress(state, scheme)["weight"]
    assert np.array_equal(seen.numpy(), foreign.meant(q, zeros, scales))
