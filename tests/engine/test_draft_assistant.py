"""Gemma 4's assistants: they guess what transformers has them guess, no text changes, and others are refused."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from localinfer.config import EngineConfig, SamplingParams
from localinfer.cost.fitting import _drafter_bytes
from localinfer.engine.engine import StepEngine
from localinfer.engine.runner import NativeRunner
from localinfer.errors import Corrupt, NotSupported, UsageError
from localinfer.formats.safetensors import SafetensorsFile, write_safetensors
from localinfer.graph.weights import Checkpoint
from localinfer.speculation import chain
from localinfer.speculation.chain import ChainDrafter
from localinfer.speculation.controller import Controller
from localinfer.speculation.drafter import Ask, Draft
from tests.engine.running import SAMPLINGS, Eager, make_prompts, open_tiny, run_all, run_one
from tests.graph.oracle import transformers_model
from tests.tiny import make_checkpoint
from tests.tiny_assistant import make_assistant

PROMPTS = make_prompts(4)
WINDOW = 8


class Recording(ChainDrafter):
    """Keeps what it was asked and what it guessed."""

    kept: list[tuple[list[int], list[int]]]

    def propose(self, asks: Sequence[Ask]) -> list[Draft]:
        drafts = super().propose(asks)
        self.kept += [([*ask.tokens], [*draft.tokens]) for ask, draft in zip(asks, drafts, strict=True)]
        return drafts


def drafter_of(engine: StepEngine) -> Recording:
    """The engine's only drafter, recording; every guess of it is tried."""
    assert isinstance(engine.speculator, Controller)
    (record,) = engine.speculator._records.values()
    made = Recording("model", record.drafter._draft_runner)  # type: ignore[attr-defined]
    made.kept = []
    engine.speculator = Eager([made])
    return made


class Meaning:
    """A target and its assistant in transformers, float32."""

    def __init__(self, target: Path, assistant: Path) -> None:
        import transformers

        self.target: Any = transformers_model(target)
        words: Any = transformers
        name = json.loads((assistant / "config.json").read_text())["architectures"][0]
        self.assistant: Any = getattr(words, name).from_pretrained(assistant, dtype=torch.float32)

    @torch.no_grad()
    def guesses(self, tokens: list[int], count: int) -> list[int]:
        """Of keys with a window, those are seen that the last token would see."""
        model, ids = self.target, torch.tensor([tokens])
        out = model.model(ids[:, :-1], use_cache=False, return_shared_kv_states=True)
        kv = dict(out.shared_kv_states)
        kv["sliding_attention"] = tuple(part[:, :, 1 - WINDOW :] for part in kv["sliding_attention"])
        stream, last, found = out.last_hidden_state[:, -1:], ids[:, -1:], []
        for _ in range(count):
            inputs = torch.cat([model.get_input_embeddings()(last), stream], dim=-1)
            at = torch.tensor([[len(tokens) - 1]])
            said = self.assistant(inputs_embeds=inputs, position_ids=at, shared_kv_states=kv, use_cache=False)
            last, stream = said.logits.argmax(dim=-1), said.last_hidden_state
            found.append(int(last))
        return found


def sharing_modes(config: Any) -> list[str | None]:
    """transformers 5.23 knows no model all of whose layers borrow, nor one that lends to an assistant alone."""
    count, own = config.num_hidden_layers, config.num_hidden_layers - config.num_kv_shared_layers
    modes: list[str | None] = [None] * own + ["reuse"] * (count - own)
    for kind in set(config.layer_types[:own]):
        modes[max(i for i in range(own) if config.layer_types[i] == kind)] = "store"
    return modes


@pytest.fixture(autouse=True)
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.gemma4.configuration_gemma4 import Gemma4TextConfig
    from transformers.models.gemma4_unified.configuration_gemma4_unified import Gemma4UnifiedTextConfig

    for one in (Gemma4TextConfig, Gemma4UnifiedTextConfig):
        monkeypatch.setattr(one, "kv_sharing_modes", property(sharing_modes))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    at = tmp_path_factory.mktemp("pair")
    return make_checkpoint(at / "target", "gemma4_text", seed=3), make_assistant(at / "assistant", seed=5)


@pytest.mark.parametrize("clusters", [True, False], ids=["clusters", "whole head"])
def test_guesses_are_those_of_transformers(
    tmp_path: Path, pair: tuple[Path, Path], clusters: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "FLOOR", 0.0)
    target = pair[0]
    assistant = make_assistant(tmp_path / "assistant", seed=5, clusters=clusters)
    with open_tiny(target, draft="model", draft_model=assistant, kv_bits=16, parallel=2, draft_tokens=4) as engine:
        drafter = drafter_of(engine)
        run_all(engine, PROMPTS, SAMPLINGS["greedy"])
    meaning = Meaning(target, assistant)
    asked = [(known, guessed) for known, guessed in drafter.kept if guessed][::3]
    assert len(asked) > 10
    assert max(len(known) for known, _ in asked) > 3 * WINDOW
    assert len({guessed[-1] for _, guessed in asked}) > 5
    for known, guessed in asked:
        assert guessed == meaning.guesses(known, len(guessed))


def test_of_a_unified_model_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "FLOOR", 0.0)
    target = make_checkpoint(tmp_path / "target", "gemma4_unified_text", seed=3)
    assistant = make_assistant(tmp_path / "assistant", **UNIFIED)
    with open_tiny(target, draft="model", draft_model=assistant, kv_bits=16, draft_tokens=4) as engine:
        drafter = drafter_of(engine)
        run_all(engine, PROMPTS[:2], SAMPLINGS["greedy"])
    meaning = Meaning(target, assistant)
    asked = [(known, guessed) for known, guessed in drafter.kept if guessed][::4]
    assert len(asked) > 4
    for known, guessed in asked:
        assert guessed == meaning.guesses(known, len(guessed))


UNIFIED: dict[str, Any] = {
    "seed": 6,
    "unified": True,
    "clusters": False,
    "attention_k_eq_v": True,
    "num_global_key_value_heads": 1,
}


@pytest.mark.parametrize("kv_bits", [4, 8, 16])
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_leaves_no_trace(pair: tuple[Path, Path], sampling: SamplingParams, kv_bits: Any) -> None:
    target, assistant = pair
    with open_tiny(target, reuse=False, kv_bits=kv_bits) as engine:
        wanted = [run_one(engine, prompt, sampling).token_ids for prompt in PROMPTS]
    with open_tiny(target, draft="model", draft_model=assistant, parallel=3, threads=2, kv_bits=kv_bits) as engine:
        drafter_of(engine)
        found = run_all(engine, PROMPTS, sampling)
        assert [one.token_ids for one in found] == wanted
        assert sum(one.finished.stats.drafted for one in found) > 5
        again = run_all(engine, PROMPTS, sampling)  # the prompts are in the cache now
        assert [one.token_ids for one in again] == wanted


def test_knows_what_keys_were_evened_out_by(pair: tuple[Path, Path], tmp_path: Path, monkeypatch: Any) -> None:
    """A column of the keys that stands out is made smaller in a cache of 8 bits, and its queries larger: those of the
    assistant, too. Its guesses are then those of wide keys."""
    monkeypatch.setattr(chain, "FLOOR", 0.0)
    target = tmp_path / "target"
    make_checkpoint(target, "gemma4_text", seed=3)
    file = SafetensorsFile(target / "model.safetensors")
    tensors = {name: (info.dtype, file.read(name)) for name, info in file.tensors.items()}
    for name, (_, values) in tensors.items():
        if name.endswith(("k_norm.weight", "q_norm.weight")):  # of two columns, times 2^5 and 2^-5
            values[[1, len(values) // 2 + 1]] += np.uint16(5 << 7 if "k_norm" in name else 65536 - (5 << 7))
    write_safetensors(target / "model.safetensors", tensors)
    kept = []
    for bits in (16, 8):
        options: dict[str, Any] = {"draft": "model", "draft_model": pair[1], "draft_tokens": 1}
        with open_tiny(target, kv_bits=bits, **options) as engine:
            drafter = drafter_of(engine)
            run_all(engine, PROMPTS, SAMPLINGS["greedy"])
        kept.append(drafter.kept)
    wide, narrow = ({tuple(known): guessed for known, guessed in one} for one in kept)
    same = [guessed == wide[known] for known, guessed in narrow.items() if known in wide]
    assert len(same) > 40
    assert np.mean(same) > 0.8  # a fifth, were the queries left as they are


def test_what_does_not_belong_together_is_refused(pair: tuple[Path, Path], llama: Path, tmp_path: Path) -> None:
    target, assistant = pair
    with pytest.raises(NotSupported, match="writes no text of its own") as refused:
        Checkpoint(assistant)
    assert refused.value.exit_code == 5
    with pytest.raises(UsageError, match="reads keys of window, heads and size"):
        open_tiny(llama, draft="model", draft_model=assistant)
    wide = make_assistant(tmp_path / "wide", global_head_dim=128)
    with pytest.raises(UsageError, match="heads and size"):
        open_tiny(target, draft="model", draft_model=wide)
    slow = make_assistant(tmp_path / "other", sliding_window=16)
    with pytest.raises(UsageError, match="window"):
        open_tiny(target, draft="model", draft_model=slow)


@pytest.mark.parametrize("spoil", ["twice", "below", "missing"])
def test_a_broken_order_of_tokens_is_refused(pair: tuple[Path, Path], tmp_path: Path, spoil: str) -> None:
    assistant = make_assistant(tmp_path / "broken")
    file = SafetensorsFile(assistant / "model.safetensors")
    tensors = {name: (info.dtype, file.read(name)) for name, info in file.tensors.items()}
    order = tensors["masked_embedding.token_ordering"][1]
    if spoil == "missing":
        del tensors["masked_embedding.token_ordering"]
    else:
        order[7] = order[8] if spoil == "twice" else -1
    write_safetensors(assistant / "model.safetensors", tensors)
    with pytest.raises(Corrupt, match="token_ordering"):
        open_tiny(pair[0], draft="model", draft_model=assistant)


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("num_centroids", 21, "a divisor of vocab_size"),
        ("num_centroids", 0, "a whole number"),
        ("centroid_intermediate_top_k", 21, "a whole number"),
        ("backbone_hidden_size", -1, "a whole number"),
        ("use_ordered_embeddings", "yes", "true or false"),
        ("text_config", None, "an object"),
    ],
)
def test_bad_configs_are_refused(pair: tuple[Path, Path], tmp_path: Path, name: str, value: Any, what: str) -> None:
    assistant = make_assistant(tmp_path / "bad")
    path = assistant / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(Corrupt, match=what):
        open_tiny(pair[0], draft="model", draft_model=assistant)


def test_what_it_takes_is_foretold(pair: tuple[Path, Path], tmp_path: Path) -> None:
    assistant = make_assistant(tmp_path / "whole", clusters=False)
    with open_tiny(pair[0], draft="model", draft_model=assistant) as engine:
        program = drafter_of(engine)._draft_runner._program  # type: ignore[attr-defined]
    checkpoint = Checkpoint(assistant, assistant=True)
    back = 64 * 32 * 2  # multiplied by outside of it
    told = _drafter_bytes(assistant, 64, EngineConfig())
    assert abs(told - program.weight_bytes - 4 * checkpoint.graph.vector_values()) <= back


def test_prompts_are_not_read_for_it(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The last layers of a Gemma 4 that keeps nothing there are left out, as without drafts."""
    asked: list[tuple[bool, bool]] = []
    partly = NativeRunner.partly

    def noted(self: NativeRunner, batch: Any, layers: int, hidden: Any, **more: Any) -> Any:
        asked.append((any(work.samples for work in batch), hidden is not None))
        return partly(self, batch, layers, hidden, **more)

    with open_tiny(pair[0], draft="model", draft_model=pair[1], prefill_chunk=32) as engine:
        monkeypatch.setattr(NativeRunner, "partly", noted)
        run_one(engine, [*range(100)], SAMPLINGS["greedy"])
    assert (False, False) in asked
    assert all(samples == hidden for samples, hidden in asked)
