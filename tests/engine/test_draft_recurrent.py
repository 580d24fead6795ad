"""Models with recurrent layers guess with their own first layers: states stay as they are, and no text changes."""

from pathlib import Path

import numpy as np
import pytest

from localinfer.config import SamplingParams
from localinfer.engine.draft_early import EarlyDraftRunner, ExitAdapter, TextsOf
from localinfer.engine.engine import StepEngine
from localinfer.engine.runner import NativeRunner
from localinfer.speculation.chain import ChainDrafter
from tests.engine.running import SAMPLINGS, Eager, Recorder, make_prompts, open_tiny, rows_of, run_all, run_one
from tests.tiny import Family, make_checkpoint

PROMPTS = make_prompts(5)
FAMILIES: tuple[Family, ...] = ("lfm2", "qwen3_5_text", "nemotron_h")


@pytest.fixture(scope="module", params=FAMILIES)
def hybrid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("hybrid") / "m", request.param, seed=2)


def guesses_early(engine: StepEngine, layers: int, *, adapts: bool) -> None:
    """From now on so many layers guess, through an exit that moves nothing, or without one by a third of them."""
    assert isinstance(engine.runner, Recorder)
    runner = engine.runner.inner
    assert isinstance(runner, NativeRunner)
    hidden = runner.program.hidden
    adapter = ExitAdapter(layers, np.zeros((2, hidden), np.float32), np.zeros((hidden, 2), np.float32))
    texts = TextsOf(engine.scheduler.running, engine.scheduler.reserve)
    early = EarlyDraftRunner(runner.program, runner, texts, adapter if adapts else None)
    engine.speculator = Eager([ChainDrafter("early", early)])
    engine.draft_mode = "early"


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_all_layers_are_always_right(hybrid: Path, sampling: SamplingParams) -> None:
    with open_tiny(hybrid, reuse=False) as engine:
        wanted = [run_one(engine, prompt, sampling).token_ids for prompt in PROMPTS]
    with open_tiny(hybrid, reuse=False) as engine:
        guesses_early(engine, engine.runner.inner.program.layers, adapts=True)  # type: ignore[attr-defined]
        found = [run_one(engine, prompt, sampling) for prompt in PROMPTS]
    assert [text.token_ids for text in found] == wanted
    assert all(text.finished.stats.accepted == text.finished.stats.drafted > 5 for text in found)


@pytest.mark.parametrize("adapts", [True, False])
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_one_layer_leaves_no_trace(hybrid: Path, sampling: SamplingParams, adapts: bool) -> None:
    """In company, and behind a prefix cache, to the bit."""
    with open_tiny(hybrid, reuse=False) as engine:
        wanted = [run_one(engine, prompt, sampling).token_ids for prompt in PROMPTS]
        rows = dict(rows_of(engine))
    with open_tiny(hybrid, parallel=3, prefill_chunk=16) as engine:
        guesses_early(engine, 1, adapts=adapts)
        found = run_all(engine, PROMPTS, sampling)
        again = run_all(engine, PROMPTS, sampling)
        seen = rows_of(engine)
    assert [text.token_ids for text in found] == [text.token_ids for text in again] == wanted
    assert all(seen[text] == bits for text, bits in rows.items() if text in seen)
    assert sum(text.finished.stats.drafted for text in found) > 5
