"""Tiny seeded random models on disk, whole Hugging Face directories: the smallest thing every room can run.

    path = make_checkpoint(tmp_path / "m", "qwen3", seed=3, tie_word_embeddings=True)

The vocabulary is 256 bytes, the specials BOS, IM_START and IM_END, then short merges of English up to `vocab_size`.
Long because each family's fields and shapes stand here.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import TensorSpec, serialize_file

from tests.tiny_delta import DELTA, delta_weights
from tests.tiny_fields import ARCHITECTURES, FAMILY_FIELDS, Json
from tests.tiny_fields import Family as Family
from tests.tiny_gemma4 import gemma4_weights
from tests.tiny_layers import LAYERS, layered_weights
from tests.tiny_mamba import MAMBA, mamba_weights

Dtype = Literal["bfloat16", "float16", "float32"]
Tensor = NDArray[np.float32]

DISTINCT: tuple[Family, ...] = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma3_text",
    "gemma3",
    "lfm2",
    "qwen3_5_text",
    "qwen2_moe",
    "qwen3_moe",
)
"""Families that differ in what is computed; the others in what config.json says, and where tensors lie."""

FAMILIES: tuple[Family, ...] = (
    *DISTINCT,
    "ministral",
    "mistral3",
    "mixtral",
    "seed_oss",
    "smollm3",
    "granite",
    "olmo2",
    "olmo3",
    "phi3",
    "exaone4",
    "glm4",
    "hunyuan_v1_dense",
    "ernie4_5",
    "cohere2",
    "starcoder2",
    "ministral3",
    "gemma2",
    "olmoe",
    "granitemoe",
    "ernie4_5_moe",
    "glm4_moe",
    "gpt_oss",
    "qwen3_5",
    "qwen3_next",
    "olmo_hybrid",
    "gemma4_text",
    "gemma4",
    "gemma4_unified",
    "gemma4_unified_text",
    "qwen3_5_moe",
    "qwen3_5_moe_text",
    "lfm2_moe",
    "granitemoehybrid",
    "falcon_h1",
    "nemotron_h",
    "muse_glimmer",
    "muse_glimmer_text",
)
MIXTURES: tuple[Family, ...] = (
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "olmoe",
    "granitemoe",
    "ernie4_5_moe",
    "glm4_moe",
    "gpt_oss",
    "qwen3_next",
    "qwen3_5_moe",
    "qwen3_5_moe_text",
    "lfm2_moe",
    "granitemoehybrid",
)
"""Families with experts, which cards do not know."""
RECURRENT: tuple[Family, ...] = (
    "lfm2",
    "lfm2_moe",
    "granitemoehybrid",
    "falcon_h1",
    "nemotron_h",
    "qwen3_5",
    "qwen3_5_text",
    "qwen3_5_moe",
    "qwen3_5_moe_text",
    "qwen3_next",
    "olmo_hybrid",
)
"""Families with recurrent layers, which cards do not know."""

UNCALIBRATED: tuple[Family, ...] = ("gemma4_text", "gemma4")
"""Families that no calibration knows."""

SPECIALS = {"<|bos|>": 256, "<|im_start|>": 257, "<|im_end|>": 258}
BOS, IM_START, IM_END = SPECIALS.values()

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

LLAMA3_ROPE: Json = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def make_checkpoint(
    path: Path,
    family: Family = "llama",
    *,
    seed: int = 0,
    dtype: Dtype = "bfloat16",
    rope_spelling: Literal["old", "new"] = "old",
    shards: int = 1,
    **config: Any,
) -> Path:
    """Write a tiny model of `family` into the directory `path` (made if needed) and return `path`.

    Two layers, hidden 64, four heads over two KV heads, intermediate 128, vocabulary 320, unless `config` says
    otherwise: every other keyword replaces or adds a field of config.json (`None` removes it). `rope_spelling="new"`
    writes `rope_parameters` instead of `rope_theta` and `rope_scaling`. Weights depend only on the seed and the shapes.
    """
    text = tiny_config(family, dtype=dtype, **config)
    weights = random_weights(text, seed)
    whole = new_spelling(text) if rope_spelling == "new" else text
    if family in NESTED:
        whole = nested(family, whole)
        weights = {nested_name(family, name): value for name, value in weights.items()}
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "config.json", whole)
    write_json(path / "generation_config.json", {"bos_token_id": BOS, "eos_token_id": [IM_END], "do_sample": False})
    write_tokenizer(path, int(text["vocab_size"]))
    write_weights(path, weights, dtype, shards)
    return path


def tiny_config(family: Family, *, dtype: Dtype = "bfloat16", **overrides: Any) -> Json:
    """config.json of a tiny `family`, in the old spelling of RoPE settings. `gemma3` gives its inner text config."""
    config: Json = {
        "architectures": [ARCHITECTURES[family]],
        "model_type": NESTED.get(family, (family, ""))[0],
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "bos_token_id": BOS,
        "eos_token_id": IM_END,
        "pad_token_id": None,
        "torch_dtype": dtype,
        **FAMILY_FIELDS[family],
        **overrides,
    }
    optional = (
        "pad_token_id",
        "sliding_window",
        "bos_token_id",
        "eos_token_id",
        "rope_scaling",
        "attn_logit_softcapping",
        "final_logit_softcapping",
    )
    return {key: value for key, value in config.items() if value is not None or key in optional}


def new_spelling(config: Json) -> Json:
    """The same config with `rope_parameters`; by layer type where the family has two sets."""
    config = dict(config)
    scaling = dict(config.pop("rope_scaling", None) or {"rope_type": "default"})
    whole = {"rope_theta": config.pop("rope_theta"), **scaling}
    if config["model_type"] == "olmo3":
        local = {"rope_theta": 500000.0, "rope_type": "default"}
        return {**config, "rope_parameters": {"full_attention": whole, "sliding_attention": local}}
    if "rope_local_base_freq" in config:
        local = {"rope_theta": config.pop("rope_local_base_freq"), "rope_type": "default"}
        return {**config, "rope_parameters": {"full_attention": whole, "sliding_attention": local}}
    return {**config, "rope_parameters": whole}


NESTED: dict[Family, tuple[str, str]] = {
    "gemma3": ("gemma3_text", "Gemma3"),
    "mistral3": ("mistral", "Mistral3"),
    "qwen3_5": ("qwen3_5_text", "Qwen3_5"),
    "qwen3_5_moe": ("qwen3_5_moe_text", "Qwen3_5Moe"),
    "gemma4": ("gemma4_text", "Gemma4"),
    "muse_glimmer": ("muse_glimmer_text", "MuseGlimmer"),
    "gemma4_unified": ("gemma4_unified_text", "Gemma4Unified"),
}
"""Of families that also see pictures, the type of the text half, and how their classes begin."""


def nested_name(family: Family, name: str) -> str:
    """What a tensor of the text half is called in the whole."""
    if not family.startswith(("gemma4", "qwen3_5", "muse")):
        return f"language_model.{name}"
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name


def nested(family: Family, text: Json) -> Json:
    """A multimodal config around `text`; the picture half is there in name only."""
    pictures: Json = {
        "model_type": "siglip_vision_model" if family == "gemma3" else "pixtral",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    vision: Json | None = pictures
    if family.startswith("gemma4"):
        vision = None
    elif family == "muse_glimmer":
        vision = {**pictures, "model_type": "muse_glimmer_vision"}
    elif family in ("qwen3_5", "qwen3_5_moe"):
        sizes = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2}
        vision = {"model_type": f"{family}_vision", **sizes}
    unsaid = family.startswith(("qwen3_5", "muse"))  # where it is left out, the head is not tied
    return {
        **({"tie_word_embeddings": text["tie_word_embeddings"]} if text["tie_word_embeddings"] == unsaid else {}),
        "architectures": [f"{NESTED[family][1]}ForConditionalGeneration"],
        "model_type": family,
        "text_config": text,
        "vision_config": vision,
        "mm_tokens_per_image": 4,
        "bos_token_id": text["bos_token_id"],
        "eos_token_id": text["eos_token_id"],
        "torch_dtype": text["torch_dtype"],
    }


def random_weights(config: Json, seed: int) -> dict[str, Tensor]:
    """Every tensor of the model as float32, drawn so that attention is sharp and greedy text is not constant."""
    if config["model_type"] in ("lfm2", "lfm2_moe"):
        return lfm2_weights(config, seed)
    if config["model_type"] in MAMBA:
        return mamba_weights(config, seed)
    if config["model_type"] in DELTA:
        return delta_weights(config, seed)
    if config["model_type"].startswith("gemma4"):
        return gemma4_weights(config, seed)
    if config["model_type"] in LAYERS:
        return layered_weights(config, seed)
    rng = np.random.default_rng(seed)
    gemma, hidden = config["model_type"] == "gemma3_text", int(config["hidden_size"])
    vocab = int(config["vocab_size"])
    head_dim = int(config.get("head_dim") or hidden // int(config["num_attention_heads"]))
    q_rows = int(config["num_attention_heads"]) * head_dim
    kv_rows = int(config["num_key_value_heads"]) * head_dim
    qk_norm = config["model_type"] in ("qwen3", "qwen3_moe", "gemma3_text")
    qkv_bias = bool(config.get("qkv_bias", config.get("attention_bias", config["model_type"] == "qwen2")))

    def linear(rows: int, cols: int, gain: float = 1.0) -> Tensor:
        return np.asarray(rng.standard_normal((rows, cols)) * (gain / np.sqrt(cols)), np.float32)

    def norm(size: int) -> Tensor:
        return np.asarray(rng.uniform(0.5, 1.5, size) - (1 if gemma else 0), np.float32)

    embed = 0.02 if gemma else 0.25
    weights = {"model.embed_tokens.weight": (rng.standard_normal((vocab, hidden)) * embed).astype(np.float32)}
    for layer in range(int(config["num_hidden_layers"])):
        at = f"model.layers.{layer}."
        shapes = {"q": (q_rows, hidden, 2.0), "k": (kv_rows, hidden, 2.0), "v": (kv_rows, hidden, 1.5)}
        for name, (rows, cols, gain) in (shapes | {"o": (hidden, q_rows, 1.5)}).items():
            weights[f"{at}self_attn.{name}_proj.weight"] = linear(rows, cols, gain)
            if qkv_bias and (
                name != "o" or config.get("attention_out_bias", config["model_type"] not in ("qwen2", "qwen2_moe"))
            ):
                weights[f"{at}self_attn.{name}_proj.bias"] = linear(rows, 4)[:, 0]
        for name in ("q_norm", "k_norm") if qk_norm else ():
            weights[f"{at}self_attn.{name}.weight"] = norm(head_dim)
        for name, rows, cols, gain in feed_forward(config, layer):
            weights[f"{at}{name}.weight"] = linear(rows, cols, gain)
        for name, rows in (
            (("gate", int(config["intermediate_size"])), ("up", int(config["intermediate_size"])), ("down", hidden))
            if config.get("mlp_bias")
            else ()
        ):
            weights[f"{at}mlp.{name}_proj.bias"] = linear(rows, 4)[:, 0]
        extra = ("pre_feedforward_layernorm", "post_feedforward_layernorm") if gemma else ()
        for name in ("input_layernorm", "post_attention_layernorm", *extra):
            weights[f"{at}{name}.weight"] = norm(hidden)
    weights["model.norm.weight"] = norm(hidden)
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = linear(vocab, hidden, 2.0)
    return weights


def feed_forward(config: Json, layer: int) -> list[tuple[str, int, int, float]]:
    """Names, rows, columns and gains of the matrices of a layer's feed-forward half."""
    hidden, inner = int(config["hidden_size"]), int(config["intermediate_size"])

    def half(at: str, width: int, names: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")) -> list[Any]:
        shapes = ((width, hidden), (width, hidden), (hidden, width))
        return [(f"{at}.{name}", *shape, 1.5) for name, shape in zip(names, shapes, strict=True)]

    if config["model_type"] == "mixtral":
        at, count = "block_sparse_moe", int(config["num_local_experts"])
        experts = [half(f"{at}.experts.{i}", inner, ("w1", "w3", "w2")) for i in range(count)]
        return [(f"{at}.gate", count, hidden, 2.0), *(one for expert in experts for one in expert)]
    dense = layer in (config.get("mlp_only_layers") or ()) or (layer + 1) % config.get("decoder_sparse_step", 1)
    if config["model_type"] not in ("qwen2_moe", "qwen3_moe") or dense:
        return half("mlp", inner)
    count, width = int(config["num_experts"]), int(config["moe_intermediate_size"])
    experts = [half(f"mlp.experts.{i}", width) for i in range(count)]
    found = [("mlp.gate", count, hidden, 2.0), *(one for expert in experts for one in expert)]
    if config["model_type"] == "qwen2_moe":
        shared = int(config["shared_expert_intermediate_size"])
        found += [*half("mlp.shared_expert", shared), ("mlp.shared_expert_gate", 1, hidden, 2.0)]
    return found


def lfm2_weights(config: Json, seed: int) -> dict[str, Tensor]:
    """The same for layers of which some have a short convolution instead of attention."""
    rng = np.random.default_rng(seed)
    hidden, inner, vocab = (int(config[key]) for key in ("hidden_size", "intermediate_size", "vocab_size"))
    head_dim = int(config.get("head_dim") or hidden // int(config["num_attention_heads"]))
    q_rows, kv_rows = (int(config[f"num_{key}_heads"]) * head_dim for key in ("attention", "key_value"))
    if config.get("block_auto_adjust_ff_dim"):
        inner = -(-(2 * inner // 3) // 256) * 256
    bias, length = bool(config["conv_bias"]), int(config["conv_L_cache"])

    def linear(rows: int, cols: int, gain: float = 1.5) -> Tensor:
        return np.asarray(rng.standard_normal((rows, cols)) * (gain / np.sqrt(cols)), np.float32)

    def norm(size: int) -> Tensor:
        return np.asarray(rng.uniform(0.5, 1.5, size), np.float32)

    weights = {"model.embed_tokens.weight": (rng.standard_normal((vocab, hidden)) * 0.25).astype(np.float32)}
    for layer, kind in enumerate(config["layer_types"]):
        at = f"model.layers.{layer}."
        if kind == "conv":
            weights[f"{at}conv.conv.weight"] = linear(hidden, length)[:, None]
            for name, rows in (("in_proj", 3 * hidden), ("out_proj", hidden)):
                weights[f"{at}conv.{name}.weight"] = linear(rows, hidden)
            for name, rows in (("conv", hidden), ("in_proj", 3 * hidden), ("out_proj", hidden)) if bias else ():
                weights[f"{at}conv.{name}.bias"] = linear(rows, 4)[:, 0]
        else:
            shapes = {"q_proj": (q_rows, hidden), "k_proj": (kv_rows, hidden), "v_proj": (kv_rows, hidden)}
            for name, (rows, cols) in (shapes | {"out_proj": (hidden, q_rows)}).items():
                weights[f"{at}self_attn.{name}.weight"] = linear(rows, cols, 2.0)
            for name in ("q_layernorm", "k_layernorm"):
                weights[f"{at}self_attn.{name}.weight"] = norm(head_dim)
        for name, (rows, cols, gain) in lfm2_halves(config, layer, inner).items():
            weights[f"{at}feed_forward.{name}.weight"] = linear(rows, cols, gain)
        if config.get("use_expert_bias") and layer >= int(config["num_dense_layers"]):
            drawn = rng.standard_normal(int(config["num_experts"])) * 0.2
            weights[f"{at}feed_forward.expert_bias"] = np.asarray(drawn, np.float32)
        for name in ("operator_norm", "ffn_norm"):
            weights[f"{at}{name}.weight"] = norm(hidden)
    weights["model.embedding_norm.weight"] = norm(hidden)
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = linear(vocab, hidden, 2.0)
    return weights


def lfm2_halves(config: Json, layer: int, inner: int) -> dict[str, tuple[int, int, float]]:
    """Rows, columns and gains of the matrices of a layer's feed-forward half."""
    hidden = int(config["hidden_size"])

    def half(at: str, width: int) -> dict[str, tuple[int, int, float]]:
        shapes = {"w1": (width, hidden), "w3": (width, hidden), "w2": (hidden, width)}
        return {f"{at}{name}": (*shape, 1.5) for name, shape in shapes.items()}

    if layer < int(config.get("num_dense_layers", layer + 1)):
        return half("", inner)
    found: dict[str, tuple[int, int, float]] = {"gate": (int(config["num_experts"]), hidden, 0.7)}
    for number in range(int(config["num_experts"])):
        found |= half(f"experts.{number}.", int(config["moe_intermediate_size"]))
    return found


def to_bfloat16(values: Tensor) -> NDArray[np.uint16]:
    """float32 to bfloat16 bits, nearest even."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_weights(path: Path, weights: Mapping[str, Tensor], dtype: Dtype, shards: int = 1) -> None:
    """`model.safetensors`, or that many shards with their index."""
    if shards == 1:
        write_safetensors(path / "model.safetensors", weights, dtype)
        return
    names, files = sorted(weights), [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    for i, file in enumerate(files):
        write_safetensors(path / file, {name: weights[name] for name in names[i::shards]}, dtype)
    where = {name: files[i % shards] for i, name in enumerate(names)}
    write_json(path / "model.safetensors.index.json", {"metadata": {}, "weight_map": where})


def write_safetensors(path: Path, weights: Mapping[str, Tensor], dtype: Dtype) -> None:
    """One file through the safetensors library."""
    kept: dict[str, NDArray[Any]] = {}
    for name, value in weights.items():
        kept[name] = np.ascontiguousarray(to_bfloat16(value) if dtype == "bfloat16" else value.astype(dtype))
    specs = {
        name: TensorSpec(dtype=dtype, shape=list(value.shape), data_ptr=value.ctypes.data, data_len=value.nbytes)
        for name, value in kept.items()
    }
    serialize_file(specs, path, metadata={"format": "pt"})


ENGLISH = """
    Ġt he in Ġa er on re Ġthe Ġs at Ġw en or Ġo is it es nd Ġc an ed Ġb ing Ġf ou Ġp al ar Ġm as Ġof Ġin le Ġd ion Ġto
    Ġand Ġh ic st ve ro Ġn ent ll om ut Ġg el ct Ġbe id ur et im am us il ch ol em
"""


def byte_letters() -> list[str]:
    """The 256 letters of byte-level BPE: letter i stands for byte i. Bytes without a shape get letters from 256 on."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(256, 512))
    return [chr(byte if byte in visible else next(hidden)) for byte in range(256)]


def write_tokenizer(path: Path, vocab_size: int = 320) -> None:
    """tokenizer.json (byte-level BPE) and tokenizer_config.json with a ChatML template; at most `vocab_size` tokens."""
    vocab = {letter: i for i, letter in enumerate(byte_letters())} | SPECIALS
    merges: list[list[str]] = []
    for word in ENGLISH.split():
        left, right = max(
            ((word[:i], word[i:]) for i in range(1, len(word))), key=lambda p: (p[0] in vocab, p[1] in vocab)
        )
        if len(vocab) < vocab_size and left in vocab and right in vocab:
            merges.append([left, right])
            vocab[word] = len(vocab)
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": content, **special} for content, i in SPECIALS.items()],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": False},
    }
    write_json(path / "tokenizer.json", tokenizer)
    write_json(
        path / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<|bos|>",
            "eos_token": "<|im_end|>",
            "add_bos_token": False,
            "chat_template": CHATML,
            "model_max_length": 512,
            "clean_up_tokenization_spaces": False,
        },
    )


def put_bos_first(path: Path) -> None:
    """Let the tokenizer of the checkpoint `path` begin texts with `<|bos|>`."""
    document = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    bos, text = {"SpecialToken": {"id": "<|bos|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    document["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, text],
        "pair": [bos, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|bos|>": {"id": "<|bos|>", "ids": [BOS], "tokens": ["<|bos|>"]}},
    }
    write_json(path / "tokenizer.json", document)


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
