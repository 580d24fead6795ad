"""Random assistants of tiny Gemma 4 models."""

from pathlib import Path
from typing import Any

import numpy as np

from localinfer.formats.bf16 import to_bf16
from localinfer.formats.safetensors import write_safetensors
from tests.tiny import tiny_config, write_json, write_tokenizer
from tests.tiny_gemma4 import FULL, SLIDING, gemma4_weights

CLUSTERS = 20


def make_assistant(path: Path, *, seed: int = 0, clusters: bool = True, unified: bool = False, **more: Any) -> Path:
    """Write the assistant of a tiny `gemma4_text`, or `gemma4_unified_text`, into the directory `path`."""
    fields: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "layer_types": [SLIDING, SLIDING, FULL],
        "num_kv_shared_layers": 3,
        "use_double_wide_mlp": False,
        "final_logit_softcapping": None,
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": 0,
        **more,
    }
    text = tiny_config("gemma4_unified_text" if unified else "gemma4_text", **fields)
    name = "gemma4_unified_assistant" if unified else "gemma4_assistant"
    rng = np.random.default_rng(seed)
    hidden, target, vocab = int(text["hidden_size"]), 64, int(text["vocab_size"])
    weights = gemma4_weights(text, seed)
    weights["model.embed_tokens.weight"] *= 20
    weights["pre_projection.weight"] = (rng.standard_normal((hidden, 2 * target)) / 8).astype(np.float32)
    weights["post_projection.weight"] = (rng.standard_normal((target, hidden)) / 4).astype(np.float32)
    if clusters:
        weights["masked_embedding.centroids.weight"] = rng.standard_normal((CLUSTERS, hidden)).astype(np.float32)
    tensors: dict[str, Any] = {one: ("BF16", to_bf16(values)) for one, values in weights.items()}
    if clusters:
        tensors["masked_embedding.token_ordering"] = ("I64", rng.permutation(vocab))
    path.mkdir(parents=True, exist_ok=True)
    write_safetensors(path / "model.safetensors", tensors)
    config = {
        "architectures": ["Gemma4UnifiedAssistantForCausalLM" if unified else "Gemma4AssistantForCausalLM"],
        "model_type": name,
        "backbone_hidden_size": target,
        "use_ordered_embeddings": clusters,
        "num_centroids": CLUSTERS,
        "centroid_intermediate_top_k": 4,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "text_config": text,
    }
    write_json(path / "config.json", config)
    write_json(path / "generation_config.json", {"num_assistant_tokens": 4})
    write_tokenizer(path, vocab)
    return path
