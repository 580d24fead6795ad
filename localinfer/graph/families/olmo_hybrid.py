"""OLMo-Hybrid (Ai2, 2026): three of four layers are gated delta nets, normed before each half; others are OLMo 2's.

Beta goes up to 2, so that a state may also turn its sign. Attention without `rope_theta` rotates nothing.
"""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families import olmo2
from localinfer.graph.families.layers import LLAMA, attend, decoder, delta_net, gated_mlp
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.ops import LayerOp
from localinfer.graph.rope import read_rope, rope_settings, still
from localinfer.graph.spec import ModelSpec, read_activation, read_config, read_delta, read_sizes, read_tied

_OUT_EPS = 1e-5
_NAMES = {"attention_layer_norm": "input_layernorm", "feedforward_layer_norm": "post_attention_layernorm"}


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the model's numbers from it."""
    config = read_config(values, "olmo_hybrid")
    sizes = read_sizes(config)
    if read_activation(config, "hidden_act") != "silu":
        raise config.unknown("hidden_act", values["hidden_act"], ("silu",))
    bias, heads = config.flag("attention_bias"), sizes["heads"]
    key_heads = config.integer("linear_num_key_heads", 1, 1024) if config.has("linear_num_key_heads") else heads
    key_dim = int(0.75 * sizes["hidden_size"] / key_heads)
    if config.has("linear_key_head_dim"):
        key_dim = config.integer("linear_key_head_dim", 1, 1 << 16)
    settings = rope_settings(config)
    rotates = (settings if "rope_theta" in settings.values else config).has("rope_theta")
    rope = read_rope(config, sizes["head_dim"]) if rotates else still(sizes["head_dim"])
    twice = config.flag("linear_allow_neg_eigval")
    return ModelSpec(
        model_type="olmo_hybrid",
        **sizes,
        tied=read_tied(config),
        activation="silu",
        qkv_bias=bias,
        o_bias=bias,
        attention_scale=sizes["head_dim"] ** -0.5,
        windows=(0,) * sizes["layers"],
        ropes=(rope,) * sizes["layers"],
        delta=read_delta(
            config, _linear_layers(config, sizes["layers"]), (heads, heads, key_dim, 2 * key_dim), 2.0 if twice else 1.0
        ),
    )


def graph(spec: ModelSpec) -> Graph:
    """x += norm(attention(x)); x += norm(mlp(x)); or x += delta net of norm(x); x += mlp(norm(x)); a layer."""
    of = spec.delta
    assert of is not None
    keys, values = of.heads * of.key_dim, of.value_heads * of.value_dim
    inputs = (("q_proj", keys), ("k_proj", keys), ("v_proj", values), ("g_proj", values))

    def halves(layer: int) -> tuple[LayerOp, LayerOp]:
        if not of.layers[layer]:
            return attend(spec, layer, olmo2.STYLE), gated_mlp(spec, layer, olmo2.STYLE)
        mixer = delta_net(
            spec,
            layer,
            inputs=inputs,
            gates=("b_proj", "a_proj"),
            out=("o_norm", "o_proj"),
            out_eps=_OUT_EPS,
            conv_each=True,
        )
        return mixer, gated_mlp(spec, layer, LLAMA)

    return decoder(spec, olmo2.STYLE, (halves(layer) for layer in range(spec.layers)))


def tensor_name(stored: str) -> str | None:
    """Ai2's own files call the norms of delta nets otherwise."""
    before, _, kind = stored.rpartition(".")
    module, _, name = before.rpartition(".")
    return f"{module}.{_NAMES[name]}.{kind}" if name in _NAMES else stored


def _linear_layers(config: Fields, layers: int) -> tuple[bool, ...]:
    types = config.words("layer_types", layers, ("linear_attention", "full_attention"))
    if types is None:
        full = {*range(3, layers, 4)} or {layers - 1}
        types = tuple("full_attention" if layer in full else "linear_attention" for layer in range(layers))
    linear = tuple(kind == "linear_attention" for kind in types)
    if all(linear) or not any(linear):
        raise config.bad("layer_types", "a list with both kinds of layers")
    return linear
