"""The text half of a model that also sees pictures: a config inside another one, and tensors with a prefix."""

from collections.abc import Callable, Mapping
from typing import Any

from localinfer.graph.fields import Fields
from localinfer.graph.names import text_alone
from localinfer.graph.spec import ModelSpec

_IDS = ("eos_token_id", "bos_token_id")
_OTHERS = (
    "vision_tower.",
    "multi_modal_projector.",
    "visual.",
    "audio_tower.",
    "embed_vision.",
    "embed_audio.",
    "vision_embedder.",
)
_PICTURES = (*_OTHERS, *(f"model.{name}" for name in _OTHERS))
"""And sounds."""


def text_spec(
    values: Mapping[str, Any], spec: Callable[[Mapping[str, Any]], ModelSpec], *, tied: bool = True
) -> ModelSpec:
    """The spec of `text_config`. Token ids that it leaves out are those of the outer object, which alone says whether
    the head is tied; `tied` where it does not."""
    config = Fields(values)
    if not config.has("text_config"):
        raise config.bad("text_config", "an object")
    text = dict(config.table("text_config").values)
    text |= {name: values[name] for name in _IDS if text.get(name) is None and name in values}
    text["tie_word_embeddings"] = values.get("tie_word_embeddings", tied)
    return spec(text)


def text_name(stored: str) -> str | None:
    """The name of a stored tensor in the text model; `None` for what is no part of it. Two layouts are in use."""
    for prefix, ours in (("language_model.lm_head.", "lm_head."), ("language_model.model.", "model.")):
        if stored.startswith(prefix):
            return ours + stored.removeprefix(prefix)
    if stored.startswith("model.language_model."):
        return "model." + stored.removeprefix("model.language_model.")
    return None if stored.startswith(_PICTURES) else text_alone(stored)
