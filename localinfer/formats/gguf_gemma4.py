"""What GGUF files call the tensors that Gemma 4 alone has: GGUF name → name here, and kind, as in `gguf_forms`."""

from collections.abc import Mapping

Names = Mapping[str, tuple[str, str]]

LAYER: Names = {
    "attn_k_norm.weight": ("self_attn.k_norm.weight", "k_head"),
    "layer_output_scale.weight": ("layer_scalar", "scalar"),
}
INPUTS: Names = {
    "inp_gate.weight": ("per_layer_input_gate.weight", "input_gate"),
    "proj.weight": ("per_layer_projection.weight", "input_out"),
    "post_norm.weight": ("post_per_layer_input_norm.weight", "norm"),
}
TABLES = (
    ("per_layer_token_embd.weight", "model.embed_tokens_per_layer.weight", "inputs_table"),
    ("per_layer_model_proj.weight", "model.per_layer_model_projection.weight", "inputs_project"),
    ("per_layer_proj_norm.weight", "model.per_layer_projection_norm.weight", "input_norm"),
)
KEYS = frozenset(
    (
        *("attention.shared_kv_layers", "attention.key_length_swa", "attention.value_length_swa"),
        *("rope.freq_base_swa", "rope.dimension_count_swa"),
        *("embedding_length_per_layer_input", "final_logit_softcapping"),
    )
)
OF_KEYS = ("k", "kv", "k_head")
"""Kinds that a layer without keys of its own has not."""
