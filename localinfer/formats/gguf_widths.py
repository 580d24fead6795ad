"""The numbers that make the shapes of a model's tensors, from a config.json that was made of a GGUF file."""

from typing import Any

from localinfer.formats.gguf_tensors import LayerWidths, Widths

Config = dict[str, Any]


def widths_of(config: Config) -> Widths:
    """The shapes' numbers of a config.json that was made here."""
    types = config.get("layer_types") or ()
    of_mamba = _mamba_widths(config)
    dense: int = config["num_hidden_layers"] if config.get("num_local_experts") == 0 else 0
    inner: int = config.get("moe_intermediate_size") or config["intermediate_size"]
    shared: int = config.get("moe_num_shared_experts") or config.get("n_shared_experts") or 0
    return Widths(
        hidden=config["hidden_size"],
        inner=config["intermediate_size"],
        vocab=config["vocab_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config["head_dim"],
        tied=config["tie_word_embeddings"],
        experts=next((config[name] for name in _EXPERTS if config.get(name)), 0),
        expert_inner=inner,
        shared_inner=next((config[name] for name in _SHARED_INNER if name in config), shared * inner),
        dense_layers=next((config[name] for name in _DENSE if name in config), dense),
        conv_length=config.get("conv_L_cache") or config.get("linear_conv_kernel_dim") or of_mamba.pop("conv", 0),
        recurrent=tuple(one in ("conv", "linear_attention", "mamba") for one in types),
        ahead=bool(config.get("mtp_num_hidden_layers")),
        **of_mamba,
        **_by_layer(config),
        key_heads=config.get("linear_num_key_heads", 0),
        value_heads=config.get("linear_num_value_heads", 0),
        key_dim=config.get("linear_key_head_dim", 0),
        value_dim=config.get("linear_value_head_dim", 0),
    )


_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_DENSE = ("num_dense_layers", "moe_layer_start_index", "first_k_dense_replace")
_SHARED_INNER = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
)
_MIXERS = {"linear_attention": "mamba", "full_attention": "attention", "mlp": "mlp", "moe": "moe"}


def _by_layer(config: Config) -> dict[str, Any]:
    """Of Gemma 4."""
    if "global_head_dim" not in config:
        return {}
    types, own = config["layer_types"], config["num_hidden_layers"] - config["num_kv_shared_layers"]
    wide = 2 if config["use_double_wide_mlp"] else 1
    kv_heads = {True: config["num_global_key_value_heads"], False: config["num_key_value_heads"]}
    dims = {True: config["global_head_dim"], False: config["head_dim"]}
    full = [one == "full_attention" for one in types]
    each = [
        LayerWidths(
            kv_heads=kv_heads[one],
            head_dim=dims[one],
            inner=config["intermediate_size"] * (wide if i >= own else 1),
            has_keys=i < own,
            has_values=not (one and config["attention_k_eq_v"]),
        )
        for i, one in enumerate(full)
    ]
    return {"each": tuple(each), "layer_inputs": config["hidden_size_per_layer_input"]}


def _mamba_widths(config: Config) -> dict[str, Any]:
    names = ("mamba_n_heads", "mamba_d_head", "mamba_n_groups", "mamba_d_state", "mamba_d_conv")
    if "layers_block_type" in config:
        names = ("mamba_num_heads", "mamba_head_dim", "n_groups", "ssm_state_size", "conv_kernel")
    if names[0] not in config:
        return {}
    heads, dim, groups, state, length = (config[name] for name in names)
    latent = config.get("moe_latent_size") or 0
    kinds = [_MIXERS[word] for word in config.get("layers_block_type", ())]
    return {
        "conv": length,
        "ssm_inner": heads * dim,
        "ssm_heads": heads,
        "ssm_groups": groups,
        "ssm_state": state,
        "latent": latent,
        "mixers": tuple("latent" if latent and kind == "moe" else kind for kind in kinds),
    }
