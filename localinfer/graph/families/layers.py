"""The decoder layer that Llama and its descendants share, with the names their checkpoints give its tensors."""

from collections.abc import Iterable, Mapping

from localinfer.graph.ops import Attend, Embed, Expert, GatedMLP, Graph, Head, LayerOp, Linear, Mixture, Norm
from localinfer.graph.spec import ModelSpec

_NAMES = {"norm": "input_layernorm", "o": "o_proj", "q_norm": "q_norm", "k_norm": "k_norm"}


def attend(
    spec: ModelSpec,
    layer: int,
    *,
    qk_norm: bool = False,
    post_norm: str = "",
    offset: float = 0.0,
    names: Mapping[str, str] = _NAMES,
) -> Attend:
    """Attention of one layer. `post_norm` is the name of the norm on its output, if there is one; `names` are those of
    the tensors that families call differently."""
    at = f"model.layers.{layer}"
    q_rows, kv_rows = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    return Attend(
        norm=Norm(f"{at}.{names['norm']}", spec.hidden_size, spec.norm_eps, offset),
        q=Linear(f"{at}.self_attn.q_proj", q_rows, spec.hidden_size, spec.qkv_bias),
        k=Linear(f"{at}.self_attn.k_proj", kv_rows, spec.hidden_size, spec.qkv_bias),
        v=Linear(f"{at}.self_attn.v_proj", kv_rows, spec.hidden_size, spec.qkv_bias),
        o=Linear(f"{at}.self_attn.{names['o']}", spec.hidden_size, q_rows, spec.o_bias),
        heads=spec.heads,
        kv_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        rope=spec.ropes[layer],
        scale=spec.attention_scale,
        q_norm=Norm(f"{at}.self_attn.{names['q_norm']}", spec.head_dim, spec.norm_eps, offset) if qk_norm else None,
        k_norm=Norm(f"{at}.self_attn.{names['k_norm']}", spec.head_dim, spec.norm_eps, offset) if qk_norm else None,
        post_norm=Norm(f"{at}.{post_norm}", spec.hidden_size, spec.norm_eps, offset) if post_norm else None,
        window=spec.windows[layer],
    )


def gated_mlp(
    spec: ModelSpec,
    layer: int,
    *,
    norm: str = "post_attention_layernorm",
    post_norm: str = "",
    offset: float = 0.0,
) -> GatedMLP:
    """The feed-forward half of one layer; `norm` and `post_norm` are names of the norms around it."""
    at = f"model.layers.{layer}"
    return GatedMLP(
        norm=Norm(f"{at}.{norm}", spec.hidden_size, spec.norm_eps, offset),
        gate=Linear(f"{at}.mlp.gate_proj", spec.intermediate_size, spec.hidden_size),
        up=Linear(f"{at}.mlp.up_proj", spec.intermediate_size, spec.hidden_size),
        down=Linear(f"{at}.mlp.down_proj", spec.hidden_size, spec.intermediate_size),
        activation=spec.activation,
        post_norm=Norm(f"{at}.{post_norm}", spec.hidden_size, spec.norm_eps, offset) if post_norm else None,
    )


def mixture(
    spec: ModelSpec,
    layer: int,
    *,
    block: str = "mlp",
    names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj"),
) -> Mixture:
    """The feed-forward half of one layer as a mixture; `names` are those of an expert's matrices."""
    of = spec.mixture
    assert of is not None
    at, hidden = f"model.layers.{layer}.{block}", spec.hidden_size

    def expert(name: str, inner: int) -> Expert:
        gate, up, down = (f"{name}.{part}" for part in names)
        return Expert(Linear(gate, inner, hidden), Linear(up, inner, hidden), Linear(down, hidden, inner))

    shared = of.shared_inner > 0
    return Mixture(
        norm=Norm(f"model.layers.{layer}.post_attention_layernorm", hidden, spec.norm_eps),
        router=Linear(f"{at}.gate", of.experts, hidden),
        experts=tuple(expert(f"{at}.experts.{number}", of.inner) for number in range(of.experts)),
        chosen=of.chosen,
        renormalise=of.renormalise,
        activation=spec.activation,
        shared=expert(f"{at}.shared_expert", of.shared_inner) if shared else None,
        shared_gate=Linear(f"{at}.shared_expert_gate", 1, hidden) if shared else None,
    )


def feed_forward(spec: ModelSpec, layer: int) -> GatedMLP | Mixture:
    """A mixture in the layers that have one, else one half for all rows, in Qwen's names."""
    has_experts = spec.mixture is not None and spec.mixture.layers[layer]
    return mixture(spec, layer) if has_experts else gated_mlp(spec, layer)


def decoder(
    spec: ModelSpec, layers: Iterable[tuple[LayerOp, ...]], *, offset: float = 0.0, norm: str = "model.norm"
) -> Graph:
    """Embedding, `layers`, final `norm` and head; a tied head is the embedding's own matrix."""
    table = Linear("model.embed_tokens", spec.vocab_size, spec.hidden_size)
    head = table if spec.tied else Linear("lm_head", spec.vocab_size, spec.hidden_size)
    final = Norm(norm, spec.hidden_size, spec.norm_eps, offset)
    return Graph(spec, Embed(table, spec.embed_scale), tuple(layers), Head(final, head, spec.logit_softcap))
