"""The numbers of published models, from their published config.json."""

from typing import Any, get_args

import pytest

from localinfer.errors import Corrupt
from localinfer.graph.families.gemma3_text import to_bfloat16
from localinfer.graph.memory import kv_bytes
from localinfer.graph.ops import Attend
from localinfer.graph.registry import family_for, known_families, read_graph
from tests.tiny import FAMILIES, NESTED, Family, nested, tiny_config
from tests.tiny_mamba import MAMBA

HALVES = {"falcon_h1": 3, "nemotron_h": 1}
"""Operations of a layer, where they are not two."""
SMOLLM2: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "eos_token_id": 2,
    "bos_token_id": 1,
}
QWEN3_06B: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rope_theta": 1000000,
    "rope_scaling": None,
    "sliding_window": None,
    "use_sliding_window": False,
    "max_window_layers": 28,
    "tie_word_embeddings": True,
}
# The multimodal repositories of Gemma 3 leave most fields to their defaults.
GEMMA3_4B: dict[str, Any] = {
    "model_type": "gemma3",
    "eos_token_id": [1, 106],
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    },
    "vision_config": {"model_type": "siglip_vision_model"},
}


@pytest.mark.parametrize(
    ("config", "parameters"),
    [(SMOLLM2, 134_515_008), (QWEN3_06B, 596_049_920), (GEMMA3_4B, 3_880_263_168)],
    ids=["SmolLM2-135M", "Qwen3-0.6B", "Gemma-3-4B"],
)
def test_it_counts_as_many_parameters_as_were_published(config: dict[str, Any], parameters: int) -> None:
    assert read_graph(config).parameters() == parameters


def test_kv_cache_of_a_token() -> None:
    graph = read_graph(SMOLLM2)
    assert kv_bytes(graph, 16) == (3 * 2 * 64 * 2,) * 30
    assert kv_bytes(graph, 8) == (3 * 2 * (64 + 4),) * 30
    assert kv_bytes(graph, [4] * 29 + [8]) == (3 * 2 * (32 + 4),) * 29 + (3 * 2 * (64 + 4),)


def test_states_of_a_sequence() -> None:
    graph = read_graph(tiny_config("lfm2"))
    assert [type(state).__name__ for state in graph.states()] == ["SlotState", "KvState", "SlotState"]
    assert graph.slot_bytes == 2 * (3 - 1) * 64 * 4
    assert read_graph(SMOLLM2).slot_bytes == 0


def test_older_files_of_lfm2_say_it_otherwise() -> None:
    config = tiny_config("lfm2", block_ff_dim=384, block_auto_adjust_ff_dim=True, full_attn_idxs=[1])
    config |= {"tie_embedding": False, "tie_word_embeddings": True}
    del config["layer_types"]
    graph = read_graph(config)
    assert graph.spec.conv_layers == (True, False, True)
    assert (graph.spec.intermediate_size, graph.spec.tied) == (256, False)
    with pytest.raises(Corrupt, match="full_attn_idxs"):
        read_graph({**config, "full_attn_idxs": [3]})


def test_a_nested_config_takes_what_it_lacks_from_outside() -> None:
    spec = read_graph(GEMMA3_4B).spec
    assert spec.eos_token_ids == (1, 106)
    assert (spec.heads, spec.kv_heads, spec.head_dim, spec.vocab_size) == (8, 4, 256, 262208)
    assert spec.windows[:6] == (1024, 1024, 1024, 1024, 1024, 0)
    assert spec.tied


def test_the_embedding_is_scaled_as_in_training() -> None:
    # 25.298 is not a bfloat16; the model was trained with the nearest one.
    assert to_bfloat16(640**0.5) == 25.25
    assert to_bfloat16(1152**0.5) == 34.0
    assert read_graph(tiny_config("gemma3_text", hidden_size=640)).embed.scale == 25.25


@pytest.mark.parametrize("family", [family for family in FAMILIES if not family.startswith("gemma4")])
def test_a_graph_is_embedding_layers_head(family: Family) -> None:
    config = tiny_config(family)
    graph = read_graph(nested(family, config) if family in NESTED else config)
    assert [len(layer) for layer in graph.layers] == [HALVES.get(family, 2)] * graph.spec.layers
    if family in MAMBA:
        return
    recurrent = graph.spec.delta.layers if graph.spec.delta else graph.spec.conv_layers
    if not recurrent:
        assert [state.window for state in graph.kv()] == list(graph.spec.windows)
    names = [linear.name for linear in graph.linears()]
    attention = {"starcoder2": 6, "muse_glimmer": 8, "muse_glimmer_text": 8}.get(family, 7)  # gates that it has or not
    mixers = {"olmo_hybrid": 7, "qwen3_5": 5, "qwen3_5_text": 5, "qwen3_next": 3}  # matrices of a delta net
    other = 3 + mixers.get(family, 2)
    in_layers = sum(other if recurrent[i : i + 1] == (True,) else attention for i in range(graph.spec.layers))
    assert len(names) == len(set(names))
    if graph.spec.mixture is None:
        assert len(names) == in_layers + (1 if graph.spec.tied else 2)


def test_layers_of_gemma_4_differ() -> None:
    """Of six layers, sliding and full in turn, the last two read the cache of 2 and 3, and are twice as wide."""
    graph = read_graph(tiny_config("gemma4_text"))
    assert [(state.kv_heads, state.head_dim, state.window) for state in graph.kv()] == [(2, 32, 8), (2, 64, 0)] * 2
    attends = [op for op in graph.body if isinstance(op, Attend)]
    assert [op.kv_of for op in attends] == [-1, -1, -1, -1, 2, 3]
    assert [layer[1].linears()[0].rows for layer in graph.layers] == [128, 128, 128, 128, 256, 256]
    assert graph.kv_windows() == (8, 0)
    assert graph.inputs is not None
    assert graph.inputs.table in graph.tables
    assert {linear.name for linear in graph.unquantized} >= {"model.per_layer_model_projection"}
    attends = [op for op in read_graph(tiny_config("gemma4_unified_text")).body if isinstance(op, Attend)]
    assert [op.v is None for op in attends] == [False, True, False, True]


def test_every_known_family_is_tested() -> None:
    assert set(known_families()) == set(FAMILIES)
    assert all(family_for(name) for name in known_families())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_operation_answers_for_itself(family: Family) -> None:
    """What is counted by operation is what is counted by tensor."""
    graph = read_graph(tiny_config(family))
    table, read = graph.head.table, graph.traffic(1)
    mixture = graph.spec.mixture
    parts = {
        linear: mixture.chosen / mixture.experts if mixture and ".experts." in linear.name else 1 for linear in read
    }
    matrices = sum(linear.rows * linear.cols * parts[linear] for linear in read if linear not in graph.tables)
    assert sum(op.flops(3) for op in graph.ops) == pytest.approx(2 * 3 * (matrices + table.rows * table.cols))
    if graph.inputs is not None:
        parts[graph.inputs.table] = 1 / graph.inputs.table.rows
    assert read == pytest.approx({**parts, graph.embed.table: read[graph.embed.table]})
    assert graph.traffic(1)[graph.embed.table] == (1 if graph.spec.tied else 1 / graph.embed.table.rows)
    assert graph.traffic(table.rows)[graph.embed.table] == 1
    for op in graph.body:
        assert [linear for together in op.fused() for linear in together] == list(op.linears())
        assert len({linear.cols for linear in op.fused()[0]}) == 1
        assert op.input_norm() in (None, *op.norms())
        assert op.width() > 0


def test_every_executor_knows_every_operation() -> None:
    """One that is added to the graph must be taught to all who run it."""
    from localinfer.graph.ops import LayerInput, LayerOp, Mixture, Op
    from localinfer.graph.program import ADD
    from localinfer.quantize.stream import INNER
    from localinfer.reference.executor import ADDED

    assert set(ADD) == set(get_args(Op))
    assert set(ADDED) == set(get_args(LayerOp))
    assert set(INNER) == set(get_args(LayerOp)) - {Mixture, LayerInput}  # `make_plan` refuses to calibrate them
