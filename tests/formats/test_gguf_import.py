"""Importing GGUF: tiny models of each architecture come back as they were; what we cannot run is said by name."""

import json
import re
import resource
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer.errors import Corrupt, DoesNotFit, LocalInferError, NotSupported, UsageError
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_import import import_gguf
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.rope import Rope
from localinfer.graph.weights import Checkpoint
from tests.formats.files import write
from tests.formats.gguf_models import Pairs, gguf_of, tokenizer_pairs
from tests.tiny import Family, make_checkpoint

FAMILIES: list[tuple[Family, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"attention_bias": True, "tie_word_embeddings": True, "head_dim": 32}),
    ("qwen2", {}),
    ("qwen3", {}),
    ("gemma3_text", {"num_hidden_layers": 7, "sliding_window_pattern": 6, "query_pre_attn_scalar": 32}),
]


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "tiny", "llama", dtype="float32")


@pytest.mark.parametrize(("family", "config"), FAMILIES)
def test_each_architecture_comes_back(tmp_path: Path, family: Family, config: dict[str, Any]) -> None:
    source = make_checkpoint(tmp_path / "source", family, dtype="float32", seed=3, **config)
    path = write(tmp_path / "x.gguf", gguf_of(source))
    seen: list[tuple[int, int]] = []
    import_gguf(path, tmp_path / "back", lambda done, total: seen.append((done, total)))
    before, after = Checkpoint(source), Checkpoint(tmp_path / "back")
    assert after.spec == before.spec
    assert after.graph == before.graph
    assert seen[-1] == (before.graph.parameters(), before.graph.parameters())
    for linear in before.graph.linears():
        np.testing.assert_allclose(after.matrix(linear.name), before.matrix(linear.name), rtol=2**-8)
    for name, _ in before.graph.vectors():
        np.testing.assert_allclose(after.vector(name), before.vector(name), rtol=2**-8, atol=1e-6)
    theirs, ours = Tokenizer(source), Tokenizer(tmp_path / "back")
    text = "Hello there, the 日本 <|im_end|>"
    assert ours.encode_text(text) == theirs.encode_text(text)
    assert (ours.bos_id, ours.eos_ids, ours.adds_bos) == (theirs.bos_id, theirs.eos_ids, theirs.adds_bos)
    assert ours.chat_template == "{{ messages }}"


def test_the_template_for_tools_comes_along(tmp_path: Path, tiny: Path) -> None:
    path = write(tmp_path / "x.gguf", gguf_of(tiny, extra={"tokenizer.chat_template.tool_use": ("str", "T")}))
    import_gguf(path, tmp_path / "back")
    ours = Tokenizer(tmp_path / "back")
    assert (ours.chat_template, ours.tools_template) == ("{{ messages }}", "T")


def test_large_models_are_written_in_shards(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localinfer.formats.gguf_import.SHARD_BYTES", 50_000)
    path = write(tmp_path / "x.gguf", gguf_of(tiny))
    import_gguf(path, tmp_path / "back")
    assert len(list((tmp_path / "back").glob("model-*-of-*.safetensors"))) > 2
    Checkpoint(tmp_path / "back")


def llama3_divisors(half: int, base: float) -> NDArray[np.float32]:
    """What llama.cpp's converter stores for Llama 3's RoPE scaling (factor 8, 1 and 4 turns, 8192 tokens)."""
    divisors = []
    for i in range(half):
        length = 2 * np.pi * base ** (i / half)
        smooth = (8192 / length - 1) / 3
        divisors.append(1.0 if length < 8192 / 4 else 8.0 if length > 8192 else 1 / ((1 - smooth) / 8 + smooth))
    return np.array(divisors, np.float32)


def with_tensor(tiny: Path, monkeypatch: pytest.MonkeyPatch, name: str, values: NDArray[np.float32]) -> bytes:
    """The tiny model with one more tensor."""
    from tests.formats import gguf_models

    original = gguf_models._tensors
    monkeypatch.setattr(gguf_models, "_tensors", lambda path, arch: [*original(path, arch), (name, values)])
    return gguf_of(tiny)


def test_llama3_rope_scaling_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = make_checkpoint(tmp_path / "tiny", "llama", dtype="float32", rope_theta=500000.0, head_dim=64)
    path = write(
        tmp_path / "x.gguf", with_tensor(tiny, monkeypatch, "rope_freqs.weight", llama3_divisors(32, 500000.0))
    )
    config = import_gguf(path, tmp_path / "back")
    expected = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    assert config["rope_scaling"] == expected | {"original_max_position_embeddings": 8192}
    attend = Checkpoint(tmp_path / "back").graph.ops[1]
    rope = getattr(attend, "rope")  # noqa: B009
    assert isinstance(rope, Rope)


def test_other_rope_factors_are_refused(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.gguf", with_tensor(tiny, monkeypatch, "rope_freqs.weight", np.full(8, 3, np.float32)))
    with pytest.raises(NotSupported, match="RoPE factors"):
        import_gguf(path, tmp_path / "back")


LINEAR = {"rope_type": "linear", "factor": 4.0}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
IN_YARN: Pairs = {
    "llama.rope.scaling.type": ("str", "yarn"),
    "llama.rope.scaling.factor": ("f32", 4.0),
    "llama.rope.scaling.original_context_length": ("u32", 128),
}
SCALED: list[tuple[Pairs, dict[str, Any] | None]] = [
    ({"llama.rope.scaling.type": ("str", "none")}, None),
    ({"llama.rope.scaling.type": ("str", "none"), "llama.rope.scaling.factor": ("f32", 4.0)}, None),
    ({"llama.rope.scaling.type": ("str", "linear"), "llama.rope.scaling.factor": ("f32", 4.0)}, LINEAR),
    ({"llama.rope.scaling.factor": ("f32", 4.0)}, LINEAR),
    ({"llama.rope.scale_linear": ("f32", 4.0)}, LINEAR),
    ({"llama.rope.scaling.factor": ("f32", 4.0), "llama.rope.scale_linear": ("f32", 2.0)}, LINEAR),
    ({"llama.rope.scaling.factor": ("f32", 0.0)}, None),
    ({"llama.rope.scaling.type": ("str", "yarn"), "llama.rope.scaling.factor": ("f32", 1.0)}, None),
    (IN_YARN, YARN),
    (IN_YARN | {"llama.rope.scaling.yarn_beta_fast": ("f32", 16.0)}, YARN | {"beta_fast": 16.0}),
    (
        IN_YARN | {"llama.rope.scaling.yarn_log_multiplier": ("f32", 1.0)},
        YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
    ),
    (IN_YARN | {"llama.rope.scaling.yarn_attn_factor": ("f32", 1.25)}, YARN | {"attention_factor": 1.25}),
]


@pytest.mark.parametrize(("extra", "expected"), SCALED)
def test_rope_scaling(tmp_path: Path, tiny: Path, extra: Pairs, expected: dict[str, Any] | None) -> None:
    """As llama.cpp's loader reads it: linear unless a type is named, the older key where the newer one is missing."""
    path = write(tmp_path / "x.gguf", gguf_of(tiny, extra=extra))
    assert import_gguf(path, tmp_path / "back")["rope_scaling"] == expected
    assert Checkpoint(tmp_path / "back").spec.ropes


MANY = [f"token {i}" for i in range(321)]
REFUSED: dict[str, tuple[Pairs, type[LocalInferError], str]] = {
    "architecture": ({"general.architecture": ("str", "mamba")}, NotSupported, r"'mamba' is not known; known are ll"),
    "architecture missing": ({"general.architecture": ("str", None)}, Corrupt, "`general.architecture` is missing"),
    "hidden 0": ({"llama.embedding_length": ("u32", 0)}, Corrupt, r"`llama\.embedding_length` is 0"),
    "hidden large": ({"llama.embedding_length": ("u32", 1 << 30)}, Corrupt, r"`llama\.embedding_length` is 1073741824"),
    "hidden other": ({"llama.embedding_length": ("u32", 128)}, Corrupt, r"`token_embd\.weight` has the shape"),
    "layers 10**9": ({"llama.block_count": ("u32", 10**9)}, Corrupt, r"`llama\.block_count` is 1000000000"),
    "layers one more": ({"llama.block_count": ("u32", 3)}, Corrupt, r"`blk\.2\.attn_norm\.weight` is missing"),
    "layers one less": ({"llama.block_count": ("u32", 1)}, NotSupported, r"`blk\.1\.\S+` is not part of"),
    "heads 0": ({"llama.attention.head_count": ("u32", 0)}, Corrupt, "head_count` is 0"),
    "heads text": ({"llama.attention.head_count": ("str", "4")}, Corrupt, "head_count` has the wrong type"),
    "heads by layer": ({"llama.attention.head_count_kv": ("arr", ("u32", [2, 1]))}, NotSupported, "from layer to"),
    "heads odd": ({"llama.attention.head_count": ("u32", 3)}, Corrupt, r"`blk\.0\.attn_q\.weight` has the shape"),
    "eps nan": ({"llama.attention.layer_norm_rms_epsilon": ("f32", float("nan"))}, Corrupt, "must be a number"),
    "half a rope": ({"llama.rope.dimension_count": ("u32", 8)}, NotSupported, "RoPE turns a part"),
    "value length": ({"llama.attention.value_length": ("u32", 8)}, NotSupported, "keys and values differ"),
    "rope scaling": ({"llama.rope.scaling.type": ("str", "longrope")}, NotSupported, "'longrope', which is"),
    "tokenizer kind": ({"tokenizer.ggml.model": ("str", "bert")}, NotSupported, "tokenizer 'bert' is not known"),
    "pre-tokenizer": ({"tokenizer.ggml.pre": ("str", "nonesuch")}, NotSupported, "pre-tokenizer 'nonesuch'"),
    "no tokens": ({"tokenizer.ggml.tokens": ("arr", ("str", []))}, Corrupt, r"`tokenizer\.ggml\.tokens` is missing"),
    "tokens too many": (
        {"tokenizer.ggml.tokens": ("arr", ("str", MANY)), "tokenizer.ggml.token_type": ("str", None)},
        Corrupt,
        r"has 321 tokens, but `token_embd\.weight` has 320 rows",
    ),
    "types too few": ({"tokenizer.ggml.token_type": ("arr", ("i32", [1, 1]))}, Corrupt, "token_type` does not match"),
    "no merges": ({"tokenizer.ggml.merges": ("str", None)}, Corrupt, r"`tokenizer\.ggml\.merges` is missing"),
    "no scores": ({"tokenizer.ggml.model": ("str", "llama")}, Corrupt, r"`tokenizer\.ggml\.scores` is missing"),
    "yarn squeezed": (
        {"llama.rope.scaling.type": ("str", "yarn"), "llama.rope.scaling.factor": ("f32", 0.5)},
        NotSupported,
        "is 0.5, below 1",
    ),
    "yarn half": (
        {
            "llama.rope.scaling.type": ("str", "yarn"),
            "llama.rope.scaling.factor": ("f32", 4.0),
            "llama.rope.scaling.yarn_ext_factor": ("f32", 0.5),
        },
        NotSupported,
        "yarn_ext_factor` is 0.5",
    ),
    "rope squeezed": ({"llama.rope.scaling.factor": ("f32", 0.5)}, NotSupported, "is 0.5, below 1"),
    "merge of no token": ({"tokenizer.ggml.merges": ("arr", ("str", ["a \xff"]))}, NotSupported, "is of no use"),
    "merge of one": ({"tokenizer.ggml.merges": ("arr", ("str", ["ab"]))}, Corrupt, "which is no pair"),
    "eos after": ({"tokenizer.ggml.add_eos_token": ("bool", True)}, NotSupported, "add_eos_token` is True"),
    "suppressed": ({"tokenizer.ggml.suppress_tokens": ("arr", ("i32", [7]))}, NotSupported, "suppress_tokens` is"),
    "unknown tokenizer key": ({"tokenizer.ggml.nonesuch": ("bool", True)}, NotSupported, "`tokenizer.ggml.nonesuch`"),
    "experts without a number": ({"llama.expert_count": ("u32", 8)}, Corrupt, "expert_used_count` is missing"),
    "experts that are not there": (
        {"llama.expert_count": ("u32", 8), "llama.expert_used_count": ("u32", 2)},
        Corrupt,
        r"`blk\.0\.ffn_gate_inp\.weight` is missing",
    ),
    "experts too many": (
        {"llama.expert_count": ("u32", 1 << 20), "llama.expert_used_count": ("u32", 2)},
        Corrupt,
        r"`llama\.expert_count` is 1048576",
    ),
    "a projector": ({"general.type": ("str", "mmproj")}, NotSupported, "holds a 'mmproj', not a model"),
}  # fmt: skip


@pytest.mark.parametrize(("changed", "error", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_before_anything_is_written(
    tmp_path: Path, tiny: Path, changed: Pairs, error: type[LocalInferError], words: str
) -> None:
    path = write(tmp_path / "x.gguf", gguf_of(tiny, extra=changed))
    with pytest.raises(error, match=words) as caught:
        import_gguf(path, tmp_path / "back")
    assert caught.value.hint
    assert not (tmp_path / "back").exists()


UNHEEDED: Pairs = {
    "llama.attention.causal": ("bool", True),
    "llama.expert_count": ("u32", 0),
    "llama.expert_used_count": ("arr", ("u32", [0, 0])),
    "llama.logit_scale": ("f32", 1.0),
    "llama.attention.scale": ("f32", 0.25),
    "llama.rope.scaling.attn_factor": ("f32", 1.0),
    "llama.rope.scaling.finetuned": ("bool", True),
    "llama.vocab_size": ("u32", 320),
    "llama.attention.sliding_window": ("u32", 4096),
    "llama.attention.head_count_kv": ("arr", ("u32", [2, 2])),
    "tokenizer.ggml.add_eos_token": ("bool", False),
    "tokenizer.ggml.seperator_token_id": ("u32", 1),
}


def test_keys_that_say_nothing_new(tmp_path: Path, tiny: Path) -> None:
    path = write(tmp_path / "x.gguf", gguf_of(tiny, extra=UNHEEDED))
    import_gguf(path, tmp_path / "back")
    assert Checkpoint(tmp_path / "back").spec == Checkpoint(tiny).spec


KEYS: Pairs = {
    "attention.causal": ("bool", False),
    "expert_shared_count": ("u32", 1),
    "logit_scale": ("f32", 0.5),
    "embedding_scale": ("f32", 12.0),
    "residual_scale": ("f32", 0.22),
    "attention.scale": ("f32", 0.0156),
    "attention.clamp_kqv": ("f32", 8.0),
    "attention.sliding_window": ("u32", 8),
    "attn_logit_softcapping": ("f32", 50.0),
    "final_logit_softcapping": ("f32", 30.0),
    "pooling_type": ("u32", 3),
    "rope.scaling.attn_factor": ("f32", 1.5),
    "rope.dimension_sections": ("arr", ("i32", [4, 4, 0, 0])),
    "nextn_predict_layers": ("u32", 1),
    "use_parallel_residual": ("bool", True),
    "hidden_activation": ("str", "gelu"),
    "classifier.output_labels": ("arr", ("str", ["yes", "no"])),
    "a_key_of_next_year": ("u32", 1),
}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_would_change_the_result_is_named(tmp_path: Path, tiny: Path, key: str) -> None:
    path = write(tmp_path / "x.gguf", gguf_of(tiny, extra={f"llama.{key}": KEYS[key]}))
    with pytest.raises(NotSupported, match=rf"`llama\.{re.escape(key)}` is ") as caught:
        import_gguf(path, tmp_path / "back")
    assert caught.value.hint
    assert not (tmp_path / "back").exists()


def gemma3_of(tmp_path: Path, extra: Pairs) -> dict[str, Any]:
    source = make_checkpoint(tmp_path / "source", "gemma3_text", dtype="float32", num_hidden_layers=7)
    return import_gguf(write(tmp_path / "x.gguf", gguf_of(source, extra=extra)), tmp_path / "back")


def test_gemma3_soft_cap_and_windows(tmp_path: Path) -> None:
    extra: Pairs = {
        "gemma3.final_logit_softcapping": ("f32", 30.0),
        "gemma3.attention.sliding_window_pattern": ("arr", ("bool", [True, False, True, True, True, True, False])),
    }
    config = gemma3_of(tmp_path, extra)
    assert config["final_logit_softcapping"] == 30.0
    spec = Checkpoint(tmp_path / "back").spec
    assert spec.logit_softcap == 30.0
    assert spec.windows == (8, 0, 8, 8, 8, 8, 0)


@pytest.mark.parametrize(("every", "windows"), [(0, (8,) * 7), (1, (0,) * 7), (3, (8, 8, 0, 8, 8, 0, 8))])
def test_gemma3_every_nth_layer_sees_everything(tmp_path: Path, every: int, windows: tuple[int, ...]) -> None:
    gemma3_of(tmp_path, {"gemma3.attention.sliding_window_pattern": ("u32", every)})
    assert Checkpoint(tmp_path / "back").spec.windows == windows


def test_gemma3_without_a_window(tmp_path: Path) -> None:
    """llama.cpp's loader then takes all layers for full ones, with the full layers' RoPE."""
    extra: Pairs = {"gemma3.attention.sliding_window": ("u32", None), "gemma3.rope.freq_base": ("f32", None)}
    assert gemma3_of(tmp_path, extra)["rope_theta"] == 10000.0
    assert Checkpoint(tmp_path / "back").spec.windows == (0,) * 7


def test_unknown_tensor(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_tensor(tiny, monkeypatch, "blk.0.ffn_gate_exps.weight", np.zeros((2, 2), np.float32))
    with pytest.raises(NotSupported, match=r"`blk\.0\.ffn_gate_exps\.weight` is not part of a llama model"):
        import_gguf(write(tmp_path / "x.gguf", data), tmp_path / "back")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_bad_weights_are_named(tmp_path: Path, tiny: Path, value: float) -> None:
    data = bytearray(gguf_of(tiny))
    file = GgufFile(write(tmp_path / "x.gguf", bytes(data)))
    place = file.tensors["blk.1.ffn_up.weight"]
    data[place.end - 4 : place.end] = struct.pack("<f", value)
    path = write(tmp_path / "y.gguf", bytes(data))
    with pytest.raises(Corrupt, match=r"`blk\.1\.ffn_up\.weight` holds NaN or infinite weights"):
        import_gguf(path, tmp_path / "back")
    assert not (tmp_path / "back" / "config.json").exists()


def test_does_not_write_over_something(tmp_path: Path, tiny: Path) -> None:
    path = write(tmp_path / "x.gguf", gguf_of(tiny))
    with pytest.raises(UsageError, match="is not empty"):
        import_gguf(path, tiny)


def test_disk_full(tmp_path: Path, tiny: Path) -> None:
    path = write(tmp_path / "x.gguf", gguf_of(tiny))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(DoesNotFit):
            import_gguf(path, tmp_path / "back")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "back" / "config.json").exists()


def test_every_flip_in_the_metadata_is_clean(tmp_path: Path, tiny: Path) -> None:
    """Importing a file with damage in its metadata works, or says what is wrong; never anything else."""
    good = gguf_of(tiny)
    rng = np.random.default_rng(5)
    end = min(tensor.begin for tensor in GgufFile(write(tmp_path / "x.gguf", good)).tensors.values())
    results = set()
    for number in range(150):
        data = bytearray(good)
        data[rng.integers(24, end)] ^= 1 << rng.integers(8)
        try:
            import_gguf(write(tmp_path / "x.gguf", bytes(data)), tmp_path / f"{number}")
            Tokenizer(tmp_path / f"{number}")
            results.add("imported")
        except (Corrupt, NotSupported) as error:
            results.add(type(error).__name__)
    assert "Corrupt" in results


def test_end_tokens_are_found_by_name(tmp_path: Path, tiny: Path) -> None:
    """A file may name one of several end tokens only; the others are known by their text."""
    tokens = json.loads(json.dumps(tokenizer_pairs(tiny, "gpt-2")["tokenizer.ggml.tokens"][1][1]))
    tokens[256] = "<|endoftext|>"
    extra: Pairs = {"tokenizer.ggml.tokens": ("arr", ("str", tokens)), "tokenizer.ggml.eot_token_id": ("u32", 257)}
    config = import_gguf(write(tmp_path / "x.gguf", gguf_of(tiny, extra=extra)), tmp_path / "back")
    assert config["eos_token_id"] == [256, 257, 258]
    assert Tokenizer(tmp_path / "back").eos_ids == (256, 257, 258)


def test_a_bias_that_is_missing_is_the_file_s_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.formats import gguf_models

    path = make_checkpoint(tmp_path / "m", "qwen2")
    whole = gguf_models._tensors
    monkeypatch.setattr(
        gguf_models, "_tensors", lambda *given: [one for one in whole(*given) if not one[0].endswith(".bias")]
    )
    (tmp_path / "m.gguf").write_bytes(gguf_of(path))
    with pytest.raises(Corrupt, match=r"`blk\.0\.attn_q\.bias` is missing") as error:
        import_gguf(tmp_path / "m.gguf", tmp_path / "out")
    assert "file" in str(error.value.hint)
    assert "config.json" not in str(error.value.hint)
