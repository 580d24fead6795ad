"""config.json from strangers: each bad field is named with its value, before anything is computed from it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from localinfer.errors import Corrupt, LocalInferError, NotSupported
from localinfer.graph.registry import known_families, read_graph
from localinfer.graph.weights import Checkpoint
from tests.tiny import FAMILIES, LLAMA3_ROPE, NESTED, Family, make_checkpoint, nested, tiny_config

ABSENT: Any = object()
SIZES = (
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "num_hidden_layers",
    "intermediate_size",
    "vocab_size",
    "head_dim",
    "max_position_embeddings",
)
ABSURD = (0, -1, 2**63, 2**1000, 64.5, 64.0, math.nan, math.inf, "64", True, [64], {"a": 64})


def config_with(family: Family, **fields: Any) -> dict[str, Any]:
    """The tiny config of `family` with some fields replaced, or left out if `ABSENT`."""
    config = {**tiny_config(family), **fields}
    config = {name: value for name, value in config.items() if value is not ABSENT}
    return nested(family, config) if family in NESTED else config


def refused(family: Family, kind: type[LocalInferError], **fields: Any) -> str:
    """The message with which a config is refused; it must have a hint too."""
    with pytest.raises(kind) as caught:
        read_graph(config_with(family, **fields))
    assert caught.value.hint
    assert caught.value.message.isprintable()
    return caught.value.message


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_is_no_size(family: Family, name: str) -> None:
    if name == "intermediate_size" and family.startswith("qwen3_5_moe"):
        name = "moe_intermediate_size"  # all its layers have experts
    for value in ABSURD:
        message = refused(family, Corrupt, **{name: value})
        assert name in message, value
        assert len(message) < 300, value


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize(
    "name", ["hidden_size", "num_attention_heads", "num_hidden_layers", "intermediate_size", "vocab_size"]
)
def test_a_size_that_is_null(family: Family, name: str) -> None:
    message = refused(family, Corrupt, **{name: None})
    assert name in message
    assert "null" in message


@pytest.mark.parametrize("name", ["rope_theta", "rms_norm_eps"])
@pytest.mark.parametrize("value", [0, -1.0, 1e300, math.nan, math.inf, -math.inf, "1e4", True, 2**63 * 10**6])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_number_that_is_absurd(family: Family, name: str, value: object) -> None:
    if name == "rms_norm_eps":
        others = {"cohere2": "layer_norm_eps", "starcoder2": "norm_epsilon", "nemotron_h": "layer_norm_epsilon"}
        name = {**dict.fromkeys(("lfm2", "lfm2_moe"), "norm_eps"), **others}.get(family, name)
    if name == "rope_theta" and family == "nemotron_h":
        pytest.skip("it has no RoPE")
    if name == "rope_theta" and family in ("ministral3", *(family for family in FAMILIES if "gemma4" in family)):
        pytest.skip("its RoPE settings are one object")
    assert name in refused(family, Corrupt, **{name: value})


@pytest.mark.parametrize(
    ("family", "fields", "named"),
    [
        ("llama", {"num_attention_heads": 4, "num_key_value_heads": 3}, "num_key_value_heads"),
        ("llama", {"num_key_value_heads": 8}, "num_key_value_heads"),
        ("llama", {"num_attention_heads": 5, "num_key_value_heads": 5}, "hidden_size"),
        ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ("llama", {"attention_bias": 1}, "attention_bias"),
        ("llama", {"eos_token_id": 320}, "eos_token_id"),
        ("llama", {"eos_token_id": [1, -1]}, "eos_token_id"),
        ("llama", {"eos_token_id": [[1]]}, "eos_token_id"),
        ("llama", {"eos_token_id": [1] * 1000}, "eos_token_id"),
        ("llama", {"bos_token_id": 2**63}, "bos_token_id"),
        ("llama", {"rope_scaling": "linear"}, "rope_scaling"),
        ("llama", {"rope_scaling": {"type": 3}}, "type"),
        ("llama", {"rope_scaling": {"type": "linear"}}, "rope_scaling.factor"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 0}}, "rope_scaling.factor"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": math.nan}}, "rope_scaling.factor"),
        ("llama", {"rope_scaling": {**LLAMA3_ROPE, "high_freq_factor": 1.0}}, "high_freq_factor"),
        ("llama", {"rope_scaling": {**LLAMA3_ROPE, "low_freq_factor": 0}}, "low_freq_factor"),
        ("llama", {"rope_scaling": {**LLAMA3_ROPE, "original_max_position_embeddings": None}}, "original_max_position"),
        ("llama", {"rope_parameters": {"rope_theta": -5}}, "rope_parameters.rope_theta"),
        ("llama", {"hidden_act": 7}, "hidden_act"),
        ("mistral", {"sliding_window": 0}, "sliding_window"),
        ("mistral", {"sliding_window": "8"}, "sliding_window"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": -8}, "sliding_window"),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": -1}, "max_window_layers"),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 8, "layer_types": ["full_attention"]}, "layer_types"),
        ("gemma3_text", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
        ("gemma3_text", {"sliding_window_pattern": 0}, "sliding_window_pattern"),
        ("gemma3_text", {"final_logit_softcapping": -1.0}, "final_logit_softcapping"),
        ("gemma3_text", {"rope_local_base_freq": 0}, "rope_local_base_freq"),
        ("gemma3_text", {"rope_parameters": {"full_attention": 3}}, "rope_parameters.full_attention"),
        ("gemma3_text", {"layer_types": "full_attention"}, "layer_types"),
    ],
)
def test_fields_that_contradict_or_make_no_sense(family: Family, fields: dict[str, Any], named: str) -> None:
    assert named in refused(family, Corrupt, **fields)


@pytest.mark.parametrize(
    ("family", "fields", "words"),
    [
        ("llama", {"model_type": "rwkv"}, known_families()),
        ("llama", {"model_type": "minicpm3"}, ("minicpm3",)),
        ("llama", {"model_type": "\x1b[31mred"}, known_families()),
        ("llama", {"hidden_act": "relu"}, ("hidden_act", "relu", "silu")),
        ("gemma3_text", {"hidden_activation": "gelu_fast"}, ("hidden_activation", "gelu_pytorch_tanh")),
        ("llama", {"rope_scaling": {"rope_type": "proportional"}}, ("proportional", "default", "linear", "llama3")),
        ("llama", {"rope_parameters": {"rope_type": "su"}}, ("su", "llama3")),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, ("partial_rotary_factor",)),
        ("llama", {"partial_rotary_factor": 0.25}, ("partial_rotary_factor",)),
        ("phi3", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, ("yarn", "longrope")),
        ("olmo3", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "truncate": False}}, ("truncate",)),
        ("ministral3", {"layer_types": ["full_attention"] * 2}, ("layer_types",)),
        ("cohere2", {"hidden_act": "quick_gelu"}, ("hidden_act", "silu")),
        ("granite", {"hidden_act": "relu2"}, ("hidden_act", "silu")),
        ("llama", {"head_dim": 24}, ("24", "16")),
        ("llama", {"head_dim": 1024}, ("1024", "512")),
        ("llama", {"num_attention_heads": 128, "num_key_value_heads": 1, "head_dim": 16}, ("128", "64")),
        ("qwen3", {"layer_types": ["linear_attention", "full_attention"], "use_sliding_window": True}, ("linear_att",)),
        ("gemma3_text", {"use_bidirectional_attention": True}, ("use_bidirectional_attention",)),
        ("muse_glimmer_text", {"attention_bias": True}, ("attention_bias",)),
        ("muse_glimmer_text", {"layer_rope_theta": [10000.0, 500.0, 0, 10000.0, 0]}, ("layer_rope_theta",)),
        ("falcon_h1", {"hidden_act": "gelu"}, ("hidden_act", "silu")),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}, ("attn_logit_softcapping",)),
    ],
)
def test_what_we_do_not_run_is_named(family: Family, fields: dict[str, Any], words: tuple[str, ...]) -> None:
    message = refused(family, NotSupported, **fields)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("value", [None, 3, ["llama"], {}])
def test_a_model_type_that_is_no_word(value: object) -> None:
    assert "model_type" in refused("llama", Corrupt, model_type=value)


def test_a_nested_config_names_the_inner_field() -> None:
    with pytest.raises(Corrupt, match="text_config` is missing"):
        read_graph({"model_type": "gemma3"})
    with pytest.raises(Corrupt, match="text_config` is 5"):
        read_graph({"model_type": "gemma3", "text_config": 5})


def test_code_in_a_config_is_ignored() -> None:
    plain = read_graph(config_with("llama"))
    assert read_graph(config_with("llama", auto_map={"AutoModel": "evil.Model"}, trust_remote_code=True)) == plain


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"model_type": "llama", "model_type": "qwen2"}', '{"rope_theta": NaN}']
)
def test_a_file_that_is_no_config(tmp_path: Path, text: str) -> None:
    make_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(Corrupt, match=r"config\.json"):
        Checkpoint(tmp_path)


def test_a_number_of_five_thousand_digits(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    text = json.dumps({**config, "hidden_size": 1}).replace('"hidden_size": 1', '"hidden_size": ' + "9" * 5000)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(Corrupt):
        Checkpoint(tmp_path)
