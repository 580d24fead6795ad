"""Gemma 4's assistants (Gemma Team, 2026): a few layers that guess for a Gemma 4, and read its keys and values.

Queries alone are theirs. They begin with the embedding of a token and what the model, or they themselves, made of the
one before; in the small sizes only tokens of the likeliest clusters of the vocabulary are scored.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from localinfer.graph.families import gemma4_text, gemma4_unified
from localinfer.graph.families.wrapped import text_spec
from localinfer.graph.fields import Fields
from localinfer.graph.graph import Graph
from localinfer.graph.ops import Linear, Mix
from localinfer.graph.spec import AssistantSpec, ModelSpec

ORDER = "masked_embedding.token_ordering"
"""The tokens, cluster after cluster."""


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """Check config.json and read the numbers from it."""
    config = Fields(values, defaults={"use_ordered_embeddings": False, "num_centroids": 2048})
    if not config.has("text_config"):
        raise config.bad("text_config", "an object")
    unified = values["model_type"] == "gemma4_unified_assistant"
    text = dict(config.table("text_config").values)
    inner = Fields(text, "text_config.")
    for name in ("enable_moe_block", "use_double_wide_mlp"):
        inner.refuse(name, False)
    if not unified:
        inner.refuse("hidden_size_per_layer_input", 0)
    own = {"num_kv_shared_layers": 0, **({} if unified else {"hidden_size_per_layer_input": 0})}
    made = text_spec(
        {**values, "text_config": {**text, **own}}, gemma4_unified.text_alone if unified else gemma4_text.spec
    )
    return replace(
        made,
        model_type=str(values["model_type"]),
        shapes=tuple(replace(shape, kv_of=0) for shape in made.shapes),
        logit_softcap=0.0,
        assistant=_assistant(config, made.vocab_size),
    )


def _assistant(config: Fields, vocab: int) -> AssistantSpec:
    hidden = config.integer("backbone_hidden_size", 1, 1 << 16)
    if not config.flag("use_ordered_embeddings"):
        return AssistantSpec(target_hidden=hidden)
    clusters = config.integer("num_centroids", 1, vocab)
    if vocab % clusters:
        raise config.bad("num_centroids", f"a divisor of vocab_size ({vocab})")
    chosen = config.integer("centroid_intermediate_top_k", 1, clusters, min(32, clusters))
    return AssistantSpec(target_hidden=hidden, clusters=clusters, chosen=chosen)


def graph(spec: ModelSpec) -> Graph:
    """Layers like those of the model, on a mix. Which keys they read is said where a model is there (`kv_of`)."""
    of = spec.assistant
    assert of is not None
    made = gemma4_text.graph(spec)
    hidden = spec.hidden_size
    clusters = Linear("masked_embedding.centroids", of.clusters, hidden) if of.clusters else None
    mix = Mix(
        Linear("pre_projection", hidden, 2 * of.target_hidden),
        back=Linear("post_projection", of.target_hidden, hidden),
    )
    return replace(made, head=replace(made.head, clusters=clusters), mix=mix)
