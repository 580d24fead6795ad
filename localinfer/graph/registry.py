"""Which families there are. Adding one: a file in families/, and a line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

from localinfer.errors import Corrupt, NotSupported
from localinfer.graph.fields import shown
from localinfer.graph.graph import Graph
from localinfer.graph.spec import ModelSpec
from localinfer.graph.stacked import STACKED, Stacks

Fused = Mapping[str, tuple[str, ...]]
Ahead = Callable[[ModelSpec], Graph]


def _same(stored: str) -> str | None:
    return stored


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture: how to read its config.json, its graph, and the graph's name of a stored tensor."""

    spec: Callable[[Mapping[str, Any]], ModelSpec]
    graph: Callable[[ModelSpec], Graph]
    tensor_name: Callable[[str], str | None] = _same
    """`None` for tensors that are no part of the graph, such as a vision tower."""
    fused: Fused = field(default_factory=dict)
    """Stored matrices that are several of the graph's, row after row: the ends of their names, and of the graph's."""
    stacked: Stacks = field(default_factory=lambda: STACKED)
    """Stored tensors that hold something of all experts of a layer."""
    ahead: Ahead | None = None
    """The head that guesses tokens ahead, where checkpoints of the family bring one."""


FAMILIES = (
    "cohere2",
    "ernie4_5",
    "ernie4_5_moe",
    "exaone4",
    "falcon_h1",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "gemma4",
    "gemma4_text",
    "gemma4_unified",
    "gemma4_unified_text",
    "glm4",
    "glm4_moe",
    "gpt_oss",
    "granite",
    "granitemoe",
    "granitemoehybrid",
    "hunyuan_v1_dense",
    "lfm2",
    "lfm2_moe",
    "llama",
    "ministral",
    "ministral3",
    "mistral",
    "mistral3",
    "mixtral",
    "muse_glimmer",
    "muse_glimmer_text",
    "nemotron_h",
    "olmo2",
    "olmo3",
    "olmo_hybrid",
    "olmoe",
    "phi3",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen3_5_moe_text",
    "qwen3_5_text",
    "qwen3_moe",
    "qwen3_next",
    "seed_oss",
    "smollm3",
    "starcoder2",
)
"""Values of `model_type`, and names of the files. One that names tensors otherwise than the graph, or stores several as
one, says so by `tensor_name`, `FUSED` and `STACKED`."""


ASSISTANTS = ("gemma4_assistant", "gemma4_unified_assistant")
"""Values of `model_type` of models that guess for another one and read its cache; all of one file."""


def known_families() -> tuple[str, ...]:
    """The values of `model_type` in config.json that we run, sorted."""
    return FAMILIES


def family_for(model_type: object, *, assistant: bool = False) -> Family:
    """The family of `model_type`, or, with `assistant`, what guesses for one. Raises `Corrupt` if it is no word,
    `NotSupported` if we do not have it."""
    if not isinstance(model_type, str):
        raise Corrupt(
            f"config.json: `model_type` is {shown(model_type)}, not a word"
            if model_type is not None
            else "config.json: `model_type` is missing",
            hint="this is not a language model of the Hugging Face kind; choose another repository",
        )
    if model_type in ASSISTANTS:
        if assistant:
            return _family(ASSISTANTS[0])
        raise NotSupported(
            f"`{model_type}` writes no text of its own: it guesses for the Gemma 4 that it was made for",
            hint="run that model, and give this one with `--draft`",
        )
    if model_type not in FAMILIES:
        raise NotSupported(
            f"the architecture {shown(model_type)} is not supported; known: {', '.join(known_families())}",
            hint="use its GGUF file with `--backend llamacpp`, or a model of a known architecture",
        )
    return _family(model_type)


@cache
def _family(name: str) -> Family:
    """Imported when it is wanted: a model is of one family, and there are many."""
    found = import_module(f"localinfer.graph.families.{name}")
    names = {"tensor_name": "tensor_name", "fused": "FUSED", "stacked": "STACKED", "ahead": "ahead"}
    own = {field: getattr(found, name) for field, name in names.items() if hasattr(found, name)}
    return Family(found.spec, found.graph, **own)


def read_graph(config: Mapping[str, Any]) -> Graph:
    """config.json, checked, as a graph. Raises `Corrupt` and `NotSupported` naming the field."""
    family = family_for(config.get("model_type"))
    return family.graph(family.spec(config))
