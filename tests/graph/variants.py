"""The tiny models that every executor is compared on: each family, and each thing a config.json can turn on.

The seeds are the first ones whose greedy text, as transformers writes it, never stands at a near tie: the best token
leads by at least `LEAD` of the spread of the logits at all 64 steps. Below that, rounding alone may choose another
token. Our own results had no say in the choice, and the lead is asserted in the tests.
"""

from pathlib import Path
from typing import Any

from tests.tiny import LLAMA3_ROPE, make_checkpoint

LEAD = 0.012
"""Smallest lead of the best token over the second, in standard deviations of the logits."""

ROUTER_LEAD = 0.004
"""Smallest lead of a chosen expert over one that was not, in standard deviations of a row's scores."""

VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {"family": "llama", "seed": 14},
    "llama-tied": {"family": "llama", "seed": 1, "tie_word_embeddings": True, "rope_spelling": "new"},
    "llama-llama3-rope": {"family": "llama", "seed": 1, "rope_scaling": LLAMA3_ROPE, "rope_theta": 500000.0},
    "llama-llama3-rope-new": {
        "family": "llama",
        "seed": 1,
        "rope_scaling": LLAMA3_ROPE,
        "rope_theta": 500000.0,
        "rope_spelling": "new",
    },
    "llama-linear-rope": {"family": "llama", "seed": 4, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama-biases": {"family": "llama", "seed": 0, "attention_bias": True},
    "llama-head-dim": {"family": "llama", "seed": 0, "head_dim": 48, "num_key_value_heads": 1},
    "llama-no-gqa": {"family": "llama", "seed": 0, "num_key_value_heads": 4},
    "mistral": {"family": "mistral", "seed": 14},
    "mistral-window": {"family": "mistral", "seed": 8, "sliding_window": 8, "rope_spelling": "new"},
    "qwen2": {"family": "qwen2", "seed": 11, "tie_word_embeddings": True},
    "qwen2-window": {"family": "qwen2", "seed": 3, "use_sliding_window": True, "rope_spelling": "new"},
    "qwen2-layer-types": {
        "family": "qwen2",
        "seed": 15,
        "use_sliding_window": True,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "qwen3": {"family": "qwen3", "seed": 1},
    "qwen3-tied-biases": {
        "family": "qwen3",
        "seed": 18,
        "tie_word_embeddings": True,
        "attention_bias": True,
        "rope_spelling": "new",
    },
    "gemma3_text": {"family": "gemma3_text", "seed": 2},
    "gemma3_text-new": {
        "family": "gemma3_text",
        "seed": 12,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "rope_spelling": "new",
    },
    "gemma3_text-untied-mqa": {
        "family": "gemma3_text",
        "seed": 0,
        "tie_word_embeddings": False,
        "num_key_value_heads": 1,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "final_logit_softcapping": 5.0,
    },
    "gemma3": {"family": "gemma3", "seed": 2},
    "ministral": {"family": "ministral", "seed": 24},
    "mistral3": {"family": "mistral3", "seed": 14},
    "mixtral": {"family": "mixtral", "seed": 10},
    "mixtral-window": {"family": "mixtral", "seed": 3, "sliding_window": 16, "num_local_experts": 3, "head_dim": 32},
    "qwen2_moe": {"family": "qwen2_moe", "seed": 53},
    "qwen2_moe-dense-first": {
        "family": "qwen2_moe",
        "seed": 18,
        "num_hidden_layers": 3,
        "mlp_only_layers": [0],
        "norm_topk_prob": True,
        "qkv_bias": False,
        "use_sliding_window": True,
        "max_window_layers": 2,
    },
    "qwen3_moe": {"family": "qwen3_moe", "seed": 37},
    "qwen3_moe-sparse-step": {
        "family": "qwen3_moe",
        "seed": 1,
        "decoder_sparse_step": 2,
        "norm_topk_prob": False,
        "num_experts_per_tok": 8,
        "use_sliding_window": True,
        "sliding_window": 8,
    },
    "seed_oss": {"family": "seed_oss", "seed": 7},
    "seed_oss-o-bias": {
        "family": "seed_oss",
        "seed": 21,
        "attention_out_bias": True,
        "rope_spelling": "new",
        "tie_word_embeddings": True,
    },
    "smollm3": {"family": "smollm3", "seed": 9},
    "smollm3-window": {
        "family": "smollm3",
        "seed": 10,
        "num_hidden_layers": 4,
        "no_rope_layers": None,
        "use_sliding_window": True,
        "sliding_window": 8,
        "attention_bias": True,
        "rope_spelling": "new",
    },
    "lfm2": {"family": "lfm2", "seed": 11},
    "lfm2-biases": {
        "family": "lfm2",
        "seed": 2,
        "conv_bias": True,
        "conv_L_cache": 4,
        "tie_word_embeddings": False,
        "rope_spelling": "new",
    },
    "lfm2-old-mqa": {
        "family": "lfm2",
        "seed": 10,
        "layer_types": ["conv", "conv", "full_attention"],
        "num_key_value_heads": 1,
    },
}


def make_variant(name: str, path: Path, **more: Any) -> Path:
    """The tiny checkpoint of one of `VARIANTS` in `path`."""
    return make_checkpoint(path, **{**VARIANTS[name], **more})
