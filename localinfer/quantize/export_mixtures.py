"""What a GGUF file says of a graph with experts."""

from typing import Any

from localinfer.formats.gguf_form import Form
from localinfer.formats.gguf_names import GROUP_KEYS, WEIGHT_KEYS
from localinfer.graph.spec import MixtureSpec, ModelSpec, Routing
from localinfer.quantize.export_rope import cannot

LEAST_SUM = 2.0**-14
"""llama.cpp divides the weights of a row's experts by no less; a larger minimum would be lost."""
_DENSE, _SHARED, _STEP = "leading_dense_block_count", "expert_shared_count", "interleave_moe_layer_step"


def mixture_keys(spec: ModelSpec, form: Form) -> dict[str, Any]:
    """The keys of its experts, none where it has none. Raises `NotSupported` for what llama.cpp would read
    otherwise."""
    of = spec.mixture
    if of is None:
        return {}
    _refuse(spec, of, form)
    routing = of.routing
    found: dict[str, Any] = {
        "expert_count": of.experts,
        "expert_used_count": of.chosen,
        "expert_feed_forward_length": of.inner,
    }
    if form.sigmoid:
        found["expert_gating_func"] = 2
    if _DENSE in form.reads:
        found[_DENSE] = dense_layers(of)
    if _STEP in form.neutral:
        found[_STEP] = 1
    if form.reads >= WEIGHT_KEYS:
        found |= {"expert_weights_norm": routing.renormalise, "expert_weights_scale": routing.scale}
    if _has_groups(routing):
        found |= {"expert_group_count": routing.groups, "expert_group_used_count": routing.chosen_groups}
    if _SHARED in form.reads:
        found[_SHARED] = 1 if form.mixers else of.shared_inner // of.inner
    if of.shared_inner:
        found["expert_shared_feed_forward_length"] = of.shared_inner
    return found | ({"moe_latent_size": of.latent} if of.latent else {})


def dense_layers(of: MixtureSpec) -> int:
    """How many layers come before the first with experts."""
    return of.layers.index(True) if any(of.layers) else len(of.layers)


def _has_groups(routing: Routing) -> bool:
    """Groups that are all chosen are none."""
    return routing.chosen_groups < routing.groups


def _refuse(spec: ModelSpec, of: MixtureSpec, form: Form) -> None:
    routing, dense = of.routing, dense_layers(of)
    if _has_groups(routing) and not form.reads >= GROUP_KEYS:
        raise cannot("groups of experts")
    if form.mixers:
        return
    usual = form.neutral.get("expert_weights_norm", ())
    if (
        of.layers != tuple(layer >= dense for layer in range(spec.layers))
        or (dense and _DENSE not in form.reads)
        or not (form.reads >= WEIGHT_KEYS or (routing.renormalise in usual and routing.scale == 1.0))
        or routing.least_sum > LEAST_SUM
        or of.clamp != form.clamp
    ):
        raise cannot("a mixture of this kind")
