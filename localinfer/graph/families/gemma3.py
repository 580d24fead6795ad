"""Gemma 3 with pictures (4B and larger): the text half of the checkpoint, which is `gemma3_text` in a nested config."""

from collections.abc import Mapping
from typing import Any

from localinfer.graph.families import gemma3_text
from localinfer.graph.fields import Fields
from localinfer.graph.ops import Graph
from localinfer.graph.spec import ModelSpec

_IDS = ("eos_token_id", "bos_token_id")
_PICTURES = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")


def spec(values: Mapping[str, Any]) -> ModelSpec:
    """The spec of `text_config`. Token ids that it leaves out are those of the outer object, which alone says whether
    the head is tied."""
    config = Fields(values)
    if not config.has("text_config"):
        raise config.bad("text_config", "an object")
    text = dict(config.table("text_config").values)
    text |= {name: values[name] for name in _IDS if text.get(name) is None and name in values}
    text["tie_word_embeddings"] = values.get("tie_word_embeddings", True)
    return gemma3_text.spec(text)


def graph(spec: ModelSpec) -> Graph:
    """The graph of the text model."""
    return gemma3_text.graph(spec)


def tensor_name(stored: str) -> str | None:
    """The name of a stored tensor in the text model; `None` for the picture half. Two layouts are in use."""
    for prefix, ours in (("language_model.lm_head.", "lm_head."), ("language_model.model.", "model.")):
        if stored.startswith(prefix):
            return ours + stored.removeprefix(prefix)
    if stored.startswith("model.language_model."):
        return "model." + stored.removeprefix("model.language_model.")
    return None if stored.startswith(_PICTURES) else stored
