"""NaN and infinity end the answer they are in, with an error, and no other; nothing of them is kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer import native
from localinfer.config import SamplingParams
from localinfer.engine.draft_model import open_model
from localinfer.engine.engine import StepEngine
from localinfer.engine.protocol import Request
from localinfer.errors import NotFinite
from localinfer.events import Finished
from localinfer.graph.weights import Checkpoint
from localinfer.kv.cache import PagedCache
from localinfer.paths import kv_dir
from localinfer.quantize import quantize_checkpoint
from localinfer.speculation.chain import ChainDrafter
from tests.engine.running import SAMPLINGS, Eager, Recorder, Said, finish, make_prompts, open_tiny, rows_of, said
from tests.engine.trap import make_trap

PROMPTS = make_prompts(5)
BAD = 300
"""No prompt has it."""


def ends(engine: StepEngine, prompt: list[int], sampling: SamplingParams) -> tuple[Said, NotFinite | None]:
    """What `stream` gives, and raises."""
    events, error = [], None
    try:
        for event in engine.stream(Request(tuple(prompt), sampling)):
            events.append(event)
    except NotFinite as problem:
        error = problem
    return said(events, events[0].handle), error


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trap(tmp_path_factory.mktemp("harmless"), BAD, head_dim=32)


def sprung(path: Path, harmless: Path, prompt: list[int], sampling: SamplingParams, **how: Any) -> list[int]:
    """Make a trap that the answer to `prompt` runs into; gives the answer up to the token that springs it."""
    with open_tiny(harmless, **how) as engine:
        found, error = ends(engine, prompt, sampling)
    assert error is None
    tokens = list(found.token_ids)
    at = next(at for at in range(4, 20) if tokens[at] not in prompt + tokens[:at])
    make_trap(path, tokens[at], head_dim=32)
    return tokens[: at + 1]


@pytest.mark.parametrize("kv_bits", [16, 8])
@pytest.mark.parametrize("name", SAMPLINGS)
def test_the_answer_ends_before_the_step_that_has_no_numbers(
    tmp_path: Path, harmless: Path, name: str, kv_bits: int
) -> None:
    tokens = sprung(tmp_path, harmless, PROMPTS[0], SAMPLINGS[name], kv_bits=kv_bits)
    with open_tiny(tmp_path, kv_bits=kv_bits) as engine:
        found, error = ends(engine, PROMPTS[0], SAMPLINGS[name])
    assert found.token_ids == tuple(tokens)
    assert error is not None
    assert found.finished.reason == "error"
    assert found.finished.error is error
    assert f"step {len(tokens) + 1} of the answer, at position {len(PROMPTS[0] + tokens)} " in error.message
    assert error.exit_code == 7
    assert error.hint is not None
    assert ("--kv-bits 16" in error.hint) == (kv_bits < 16)


@pytest.mark.parametrize("isa", native.supported_isas())
@pytest.mark.parametrize("bits", [16, 8, 4, 3])
@pytest.mark.parametrize("kv_bits", [16, 8, 4])
def test_no_rounding_hides_it(tmp_path: Path, bits: Any, kv_bits: int, isa: str) -> None:
    """Integer weights, and keys and values in integers: a number is not made of what is none."""
    path = make_trap(tmp_path / "BF16", BAD, head_dim=32)
    if bits < 16:
        quantize_checkpoint(path, tmp_path / "made", bits=bits, group=32, threads=1)
        path = tmp_path / "made"
    with open_tiny(path, kv_bits=kv_bits, isa=isa) as engine:
        for prompt in ([BAD], [BAD, *PROMPTS[1]], [*PROMPTS[2], BAD], [*PROMPTS[2], BAD, *PROMPTS[2]]):
            found, error = ends(engine, prompt, SAMPLINGS["greedy"])
            assert (found.token_ids, type(error)) == ((), NotFinite)
        assert ends(engine, PROMPTS[2], SAMPLINGS["greedy"])[1] is None


@pytest.mark.parametrize("draft", ["off", "lookup", "suffix", "early"])
def test_others_in_the_batch_get_the_same_bits(tmp_path: Path, harmless: Path, draft: str) -> None:
    sampling = SAMPLINGS["sampled"]
    tokens = sprung(tmp_path, harmless, PROMPTS[0], sampling)
    with open_tiny(tmp_path, reuse=False) as engine:
        alone = [ends(engine, prompt, sampling)[0] for prompt in PROMPTS]
        rows = rows_of(engine)
    with open_tiny(tmp_path, reuse=False, parallel=len(PROMPTS), prefill_chunk=16, draft=draft) as engine:
        handles = [engine.add(Request(tuple(prompt), sampling)) for prompt in PROMPTS]
        events = finish(engine)
        together = [said(events, handle) for handle in handles]
        found = rows_of(engine)
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    assert together[0].token_ids == tuple(tokens)
    assert [one.finished.reason for one in together].count("error") >= 1
    assert "length" in [one.finished.reason for one in together]
    assert [one.finished.reason for one in together] == [one.finished.reason for one in alone]
    assert all(found[text] == bits for text, bits in rows.items() if text in found)
    assert rows.keys() <= found.keys()


class Guesses:
    """Guesses what is known to come, the token that springs the trap included."""

    name, free = "knows", True

    def __init__(self, text: list[int]) -> None:
        self.text = text

    def propose(self, asks: Any) -> Any:
        from localinfer.speculation.drafter import Draft

        return [Draft(self.text[len(a.tokens) :][: a.most], [1.0] * a.most) for a in asks]

    def observe(self, handle: int, guessed: int, accepted: int) -> None: ...
    def forget(self, handle: int) -> None: ...
    def close(self) -> None: ...


def test_guesses_beyond_the_trap(tmp_path: Path, harmless: Path) -> None:
    """One step checks guesses on both sides of it: the tokens before stand, the rows after are not looked at."""
    sampling = SAMPLINGS["greedy"]
    tokens = sprung(tmp_path, harmless, PROMPTS[0], sampling)
    drafter = Guesses([*PROMPTS[0], *tokens, 5, 6, 7])
    with open_tiny(tmp_path, drafter=drafter) as engine:
        found, error = ends(engine, PROMPTS[0], sampling)
    assert found.token_ids == tuple(tokens)
    assert error is not None
    assert f"step {len(tokens) + 1} " in error.message
    assert found.finished.stats.steps < len(tokens) - 1
    with open_tiny(tmp_path, drafter=drafter) as engine:  # ended by its own limit first, as without guesses
        short = SamplingParams(temperature=0, max_tokens=len(tokens), ignore_eos=True)
        found, error = ends(engine, PROMPTS[0], short)
    assert (found.token_ids, found.finished.reason, error) == (tuple(tokens), "length", None)


def test_a_model_that_guesses_nothing_but_nan_costs_no_text(tmp_path: Path, harmless: Path) -> None:
    broken = make_trap(tmp_path, PROMPTS[0][0], head_dim=32)
    with open_tiny(harmless, reuse=False) as engine:
        plain, _ = ends(engine, PROMPTS[0], SAMPLINGS["sampled"])
        draft_runner = open_model(
            broken, Checkpoint(harmless), threads=1, isa="", parallel=1, context=256, chunk=16, kv_bits=8
        )
        engine.speculator, engine.draft_mode = Eager([ChainDrafter("model", draft_runner)]), "model"
        found, error = ends(engine, PROMPTS[0], SAMPLINGS["sampled"])
    assert (found.token_ids, error) == (plain.token_ids, None)
    assert found.finished.stats.drafted == 0


LONG = [*range(3, 103)]


def cached(engine: StepEngine, prompt: list[int]) -> int:
    found, _ = ends(engine, prompt, SAMPLINGS["greedy"])
    return found.finished.stats.cached_tokens


def kept(engine: StepEngine) -> int:
    assert isinstance(engine.scheduler.cache, PagedCache)
    return len(engine.scheduler.cache.index)


def test_nothing_of_it_is_found_again(harmless: Path) -> None:
    with open_tiny(harmless) as engine:
        for _ in range(2):
            assert cached(engine, [BAD, *LONG]) == 0
            assert kept(engine) == 0
        assert cached(engine, LONG) == 0
        whole = kept(engine)
        assert whole == (len(LONG) + 23) // 32
        assert cached(engine, [*LONG[:70], BAD, *LONG]) == 64  # from these a token was drawn: they stay
        assert kept(engine) == whole
        assert cached(engine, [*LONG[:70], BAD, *LONG]) == 64
        assert cached(engine, LONG) == 96


def test_nothing_of_it_is_kept_on_disk(harmless: Path) -> None:
    with open_tiny(harmless, kv_disk_gb=1.0) as engine:
        cached(engine, [BAD, *LONG])
        cached(engine, LONG)
    files = [path for path in kv_dir().rglob("*") if path.is_file()]
    assert len(files) == (len(LONG) + 23) // 32
    with open_tiny(harmless, kv_disk_gb=1.0) as engine:
        assert cached(engine, [BAD, *LONG]) == 0
        assert cached(engine, LONG) >= 96


class Poisoned(Recorder):
    """Logits with a number that is none, in the first row of each step from the third on."""

    bad: float = np.nan
    place: int = 0

    def forward(self, batch: Any) -> NDArray[np.float32]:
        logits = super().forward(batch)
        if len(self.batch_rows) > 2 and len(logits):
            logits[0, self.place] = self.bad
        return logits


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf], ids=["NaN", "inf", "-inf"])
@pytest.mark.parametrize("place", [0, 319])
@pytest.mark.parametrize("name", SAMPLINGS)
def test_one_number_among_many(harmless: Path, name: str, place: int, bad: float) -> None:
    with open_tiny(harmless, parallel=2) as engine:
        assert isinstance(engine.runner, Recorder)
        engine.runner = poisoned = Poisoned(engine.runner.inner)
        poisoned.bad, poisoned.place = bad, place
        handles = [engine.add(Request(tuple(PROMPTS[0]), SAMPLINGS[name])) for _ in range(2)]
        first: list[Finished] = []
        while not first:
            first = [event for event in engine.step() if isinstance(event, Finished)]
        assert [(one.handle, one.reason) for one in first] == [(handles[0], "error")]
        assert isinstance(first[0].error, NotFinite)
        engine.cancel(handles[1])
