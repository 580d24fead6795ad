"""The engine on the card: each family says the processor's tokens, drafted or not, alone or in company."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.cuda import Card
from localinfer.engine.engine import StepEngine
from localinfer.engine.opening import open_engine
from localinfer.quantize.checkpoint import quantize_checkpoint
from localinfer.speculation.lookup import LookupDrafter
from localinfer.speculation.suffix import SuffixDrafter
from tests.engine.running import GREEDY, SAMPLED, Eager, make_prompts, run_all, run_one
from tests.tiny import DISTINCT, MIXTURES, RECURRENT, Family, make_checkpoint

pytestmark = pytest.mark.xdist_group("cuda")


def opened(path: Path, backend: str, **config: object) -> StepEngine:
    settings = EngineConfig(**{"context": 256, "parallel": 4, "threads": 1, "draft": "off", **config})  # type: ignore[arg-type]
    engine = open_engine(path, settings, backend=backend)
    assert isinstance(engine, StepEngine)
    assert engine.info.backend == backend
    return engine


def said(engine: StepEngine, prompts: Sequence[Sequence[int]], sampling: SamplingParams) -> list[tuple[int, ...]]:
    return [run_one(engine, tuple(prompt), sampling).token_ids for prompt in prompts]


@pytest.mark.parametrize("graphs", ["graphs", "eager"])
@pytest.mark.parametrize(
    "family", [name for name in DISTINCT if name not in (*RECURRENT, *MIXTURES)]
)  # no kernels there
def test_every_family_says_the_same(
    family: Family, graphs: str, tmp_path: Path, proved: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decode is one row a step: in a graph, or, where those are switched off, kernel by kernel."""
    monkeypatch.setenv("LOCALINFER_CUDA_GRAPHS", "1" if graphs == "graphs" else "0")
    path = make_checkpoint(tmp_path / "BF16", family, seed=3)
    quantize_checkpoint(path, tmp_path / "INT4", bits=4, group=32, threads=1)
    prompts = make_prompts(3, seed=2)
    for sampling in (GREEDY, SAMPLED):
        with opened(tmp_path / "INT4", "cpu") as here, opened(tmp_path / "INT4", "cuda") as there:
            assert said(there, prompts, sampling) == said(here, prompts, sampling)


def test_drafts_and_company_change_nothing(tmp_path: Path, proved: Card) -> None:
    """Guesses that are checked in many rows, and four texts at once: the text of one alone on the processor."""
    path = make_checkpoint(tmp_path / "BF16", "qwen3", seed=3)
    quantize_checkpoint(path, tmp_path / "INT4", bits=4, group=32, threads=1)
    prompts = [prompt[:12] * 4 for prompt in make_prompts(4, seed=3)]
    with opened(tmp_path / "INT4", "cpu") as here:
        expected = said(here, prompts, GREEDY)
    with opened(tmp_path / "INT4", "cuda") as there:
        there.speculator, there.draft_mode = Eager([SuffixDrafter(), LookupDrafter()]), "suffix"
        assert said(there, prompts, GREEDY) == expected
        together = run_all(there, prompts)
        assert [one.token_ids for one in together] == expected


def test_a_model_that_guesses_runs_on_the_card_too(tmp_path: Path, proved: Card) -> None:
    path = make_checkpoint(tmp_path / "BF16", "llama", seed=3)
    quantize_checkpoint(path, tmp_path / "INT4", bits=4, group=32, threads=1)
    prompts = make_prompts(2, seed=2)
    with opened(path, "cpu") as here:
        expected = said(here, prompts, GREEDY)
    with opened(path, "cuda", draft="model", draft_model=tmp_path / "INT4") as there:
        assert said(there, prompts, GREEDY) == expected
