"""Which families there are. Adding one: a file in families/, and a line here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from localinfer.errors import Corrupt, NotSupported
from localinfer.graph.families import (
    cohere2,
    ernie4_5,
    ernie4_5_moe,
    exaone4,
    falcon_h1,
    gemma2,
    gemma3,
    gemma3_text,
    gemma4,
    gemma4_text,
    gemma4_unified,
    glm4,
    glm4_moe,
    gpt_oss,
    granite,
    granitemoe,
    granitemoehybrid,
    hunyuan_v1_dense,
    lfm2,
    lfm2_moe,
    llama,
    ministral,
    ministral3,
    mistral,
    mistral3,
    mixtral,
    olmo2,
    olmo3,
    olmo_hybrid,
    olmoe,
    phi3,
    qwen2,
    qwen2_moe,
    qwen3,
    qwen3_5,
    qwen3_5_moe,
    qwen3_5_moe_text,
    qwen3_5_text,
    qwen3_moe,
    qwen3_next,
    seed_oss,
    smollm3,
    starcoder2,
)
from localinfer.graph.families.wrapped import text_name
from localinfer.graph.fields import shown
from localinfer.graph.graph import Graph
from localinfer.graph.names import text_alone
from localinfer.graph.spec import ModelSpec
from localinfer.graph.stacked import STACKED, Stacks

Fused = Mapping[str, tuple[str, ...]]


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


_FAMILIES: dict[str, Family] = {
    "cohere2": Family(cohere2.spec, cohere2.graph),
    "ernie4_5": Family(ernie4_5.spec, ernie4_5.graph),
    "ernie4_5_moe": Family(ernie4_5_moe.spec, ernie4_5_moe.graph, ernie4_5_moe.tensor_name),
    "exaone4": Family(exaone4.spec, exaone4.graph),
    "falcon_h1": Family(falcon_h1.spec, falcon_h1.graph, fused=falcon_h1.FUSED),
    "gemma2": Family(gemma2.spec, gemma2.graph),
    "gemma3": Family(gemma3.spec, gemma3.graph, text_name),
    "gemma3_text": Family(gemma3_text.spec, gemma3_text.graph),
    "gemma4": Family(gemma4.spec, gemma4.graph, text_name),
    "gemma4_text": Family(gemma4_text.spec, gemma4_text.graph),
    "gemma4_unified": Family(gemma4_unified.spec, gemma4_unified.graph, text_name),
    "gemma4_unified_text": Family(gemma4_unified.text_alone, gemma4_text.graph),
    "glm4": Family(glm4.spec, glm4.graph, fused=glm4.FUSED),
    "glm4_moe": Family(glm4_moe.spec, glm4_moe.graph),
    "gpt_oss": Family(gpt_oss.spec, gpt_oss.graph, stacked=gpt_oss.STACKED),
    "granite": Family(granite.spec, granite.graph),
    "granitemoe": Family(granitemoe.spec, granitemoe.graph, granitemoe.tensor_name, stacked=granitemoe.STACKED),
    "granitemoehybrid": Family(
        granitemoehybrid.spec,
        granitemoehybrid.graph,
        granitemoehybrid.tensor_name,
        granitemoehybrid.FUSED,
        granitemoehybrid.STACKED,
    ),
    "hunyuan_v1_dense": Family(hunyuan_v1_dense.spec, hunyuan_v1_dense.graph),
    "lfm2": Family(lfm2.spec, lfm2.graph),
    "lfm2_moe": Family(lfm2_moe.spec, lfm2_moe.graph, stacked=lfm2_moe.STACKED),
    "llama": Family(llama.spec, llama.graph),
    "ministral": Family(ministral.spec, ministral.graph),
    "ministral3": Family(ministral3.spec, ministral3.graph),
    "mistral": Family(mistral.spec, mistral.graph),
    "mistral3": Family(mistral3.spec, mistral3.graph, text_name),
    "mixtral": Family(mixtral.spec, mixtral.graph, mixtral.tensor_name, stacked=mixtral.STACKED),
    "olmo2": Family(olmo2.spec, olmo2.graph),
    "olmo3": Family(olmo3.spec, olmo3.graph),
    "olmoe": Family(olmoe.spec, olmoe.graph),
    "olmo_hybrid": Family(olmo_hybrid.spec, olmo_hybrid.graph, olmo_hybrid.tensor_name),
    "phi3": Family(phi3.spec, phi3.graph, fused=phi3.FUSED),
    "qwen2": Family(qwen2.spec, qwen2.graph),
    "qwen2_moe": Family(qwen2_moe.spec, qwen2_moe.graph),
    "qwen3": Family(qwen3.spec, qwen3.graph),
    "qwen3_5": Family(qwen3_5.spec, qwen3_5.graph, text_name),
    "qwen3_5_moe": Family(qwen3_5_moe.spec, qwen3_5_moe.graph, text_name),
    "qwen3_5_moe_text": Family(qwen3_5_moe_text.spec, qwen3_5_moe_text.graph, text_name),
    "qwen3_5_text": Family(qwen3_5_text.spec, qwen3_5_text.graph, text_name),
    "qwen3_moe": Family(qwen3_moe.spec, qwen3_moe.graph),
    "qwen3_next": Family(qwen3_next.spec, qwen3_next.graph, text_alone),
    "seed_oss": Family(seed_oss.spec, seed_oss.graph),
    "smollm3": Family(smollm3.spec, smollm3.graph),
    "starcoder2": Family(starcoder2.spec, starcoder2.graph),
}


def known_families() -> tuple[str, ...]:
    """The values of `model_type` in config.json that we run, sorted."""
    return tuple(sorted(_FAMILIES))


def family_for(model_type: object) -> Family:
    """The family of `model_type`. Raises `Corrupt` if it is no word, `NotSupported` if we do not have it."""
    if not isinstance(model_type, str):
        raise Corrupt(
            f"config.json: `model_type` is {shown(model_type)}, not a word"
            if model_type is not None
            else "config.json: `model_type` is missing",
            hint="this is not a language model of the Hugging Face kind; choose another repository",
        )
    if model_type not in _FAMILIES:
        raise NotSupported(
            f"the architecture {shown(model_type)} is not supported; known: {', '.join(known_families())}",
            hint="use its GGUF file with `--backend llamacpp`, or a model of a known architecture",
        )
    return _FAMILIES[model_type]


def read_graph(config: Mapping[str, Any]) -> Graph:
    """config.json, checked, as a graph. Raises `Corrupt` and `NotSupported` naming the field."""
    family = family_for(config.get("model_type"))
    return family.graph(family.spec(config))
