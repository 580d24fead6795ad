"""The ablation on a tiny model, every variant real; its formulas on examples worked out by hand; its page."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localinfer.bench import ablation_run
from localinfer.bench.ablation import NAIVE, NATIVE, Turn, Variant, VariantResult, _check, _histogram, variants_of
from localinfer.bench.ablation_report import AblationRow, ablation_table, draw, replay, rows_of
from localinfer.bench.ablation_run import AblationPlan, recorded_steps, run_ablation
from localinfer.config import EngineConfig
from localinfer.cost.machine import Bandwidth
from localinfer.cost.prices import Tariff
from localinfer.cost.roofline import Traffic
from localinfer.engine.protocol import Engine
from localinfer.errors import Corrupt, DoesNotFit, LocalInferError
from localinfer.events import Drafting, Stats
from localinfer.quantize.checkpoint import quantize_checkpoint
from tests.bench.ablation_page import page, part
from tests.tiny import make_checkpoint

ROOT = Path(__file__).parents[2]
PROMPTS = [(72, 101, 108, 108, 111), (65, 66, 65, 66, 65, 66, 65)]


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("ablation")
    made = {"BF16": make_checkpoint(folder / "BF16")}
    for bits in (8, 4, 3):
        made[f"INT{bits}"] = folder / f"INT{bits}"
        quantize_checkpoint(made["BF16"], made[f"INT{bits}"], bits=bits, method="rtn")
    return made


@pytest.fixture(autouse=True)
def known_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation_run, "read_bandwidth", lambda threads, refresh: Bandwidth(1e10, 1, 0.0))
    monkeypatch.setattr(ablation_run, "CTX", 64)
    monkeypatch.setattr(ablation_run, "CHUNKS", 1)


def results(forms: dict[str, Path], **changes: Any) -> dict[str, Any]:
    def to_prompts(engine: Engine) -> list[tuple[int, ...]]:
        return PROMPTS

    fields: dict[str, Any] = {"name": "me/tiny", "revision": None, "forms": forms, "most": 8, "rounds": 2, "streams": 2}
    plan = AblationPlan(**{**fields, "to_prompts": to_prompts, **changes})
    return run_ablation(plan, EngineConfig(threads=1), tariff=Tariff(watts=36))


@pytest.mark.parametrize("plain", [False, True])
def test_every_variant_is_measured_and_checked(forms: dict[str, Path], plain: bool) -> None:
    report = results(forms, plain=plain)
    rows = {row["name"]: row for row in report["ladder"]}
    drafted, cached = "INT4 + speculation", "INT4 + speculation + KV INT8"
    assert list(rows) == [NAIVE, NATIVE, "INT8", "INT4", "INT3", drafted, cached, f"{cached} + 2 streams"]
    assert all(row["output_ok"] and row["tok_s"] > 0 and row["joules_per_token"] > 0 for row in rows.values())
    assert rows[NAIVE]["times_naive"] == 1.0
    assert rows[NAIVE]["times_previous"] is None
    assert rows[drafted]["output_hash"] == rows["INT4"]["output_hash"]
    assert rows[f"{cached} + 2 streams"]["output_hash"] == rows[cached]["output_hash"]
    assert rows[NATIVE]["kld"] < 0.01
    assert rows["INT8"]["bytes_per_token"] < rows[NATIVE]["bytes_per_token"]
    assert ("transformers" in report["workload"]["naive"]) != plain
    assert rows["INT4"]["energy_source"] == "given"
    json.dumps(report)


def test_random_weights_have_no_guesses_but_a_replay(forms: dict[str, Path], tmp_path: Path) -> None:
    real = results(forms)
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps(real))
    report = results(forms, to_prompts=None, recorded=kept)
    names = [row["name"] for row in report["ladder"]]
    assert names[5:] == ["INT4 + speculation, replayed", "INT4 + KV INT8", "INT4 + KV INT8 + 2 streams"]
    assert [row["replayed"] for row in report["ladder"]].count(True) == 1
    assert report["ladder"][2]["kld"] is None
    assert report["ladder"][1]["kld"] is not None
    assert "replayed" in ablation_table(report)


def test_what_cannot_be_replayed(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"rows": [], "ladder": [{"name": "INT4"}]}')
    with pytest.raises(Corrupt, match="no steps of guesses"):
        recorded_steps(tmp_path / "x.json")


def variant(name: str, below: str | None, **changes: Any) -> Variant:
    return Variant(name=name, path=Path(name), stands_on=below, **changes)


def turn(ids: tuple[int, ...], seconds: float, **changes: Any) -> Turn:
    return Turn(
        **{"ids": (ids,), "seconds": seconds, "decode_s": seconds / 2, "steps": len(ids), "joules": None, **changes}
    )


READS = Traffic(1000, ((2, 0),))


def test_a_row_worked_out() -> None:
    naive = VariantResult(
        variant(NAIVE, None), READS, 16.0, "torch", {}, [turn((1, 2, 3, 4), 4.0), turn((1, 2, 3, 4), 2.0)]
    )
    ours = VariantResult(
        variant("INT4", NAIVE),
        replace(READS, weights=500),
        4.5,
        "avx2",
        {1: 0.01},
        [turn((1, 2, 3, 5), 1.0, joules=8.0, prompt=30.0)] * 2,
    )
    row = rows_of([naive, ours], {}, Tariff(usd_per_kwh=0.36), "estimate")[1]
    assert row.tok_s == 4.0
    assert row.decode_tok_s == 3 / 0.5
    assert row.times_naive == row.times_previous == 3.0  # rounds of 4 and of 2 times
    assert row.bytes_per_token == 500 + 2 * (30 + 2)  # the prompt is in the cache too
    assert row.joules_per_token == 2.0
    assert row.usd_per_mtok == pytest.approx(0.2)  # 2 MJ a million tokens = 1/1.8 kWh
    assert (row.kld, row.energy_source) == (None, "estimate")


def test_a_replay_worked_out() -> None:
    one = VariantResult(
        variant("INT4", NAIVE), READS, 4.5, "avx2", {1: 1.0, 3: 2.0}, [turn((1,) * 10, 11.0, decode_s=10.0)]
    )
    naive = VariantResult(variant(NAIVE, None), READS, 16.0, "torch", {}, [turn((1,) * 10, 110.0)])
    rows = rows_of([naive, one], {}, Tariff(), "none")
    # Four plain steps and two of 1 + 1 rows at 1.5 s wrote 14 tokens: 7 s for what takes 14 plainly.
    recorded = AblationRow(**{**_fields(rows[1]), "rows_of_steps": [4, 2], "decoded": 14})
    found = replay(rows, [naive, one], "INT4", recorded)
    assert found.replayed
    assert found.tok_s == pytest.approx(10 / (1 + 10 / 2))
    assert found.times_previous == pytest.approx(11 / 6)
    assert found.bytes_per_token == round(rows[1].bytes_per_token * 6 / 14)
    assert found.usd_per_mtok is None


def _fields(row: AblationRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def test_the_histogram_of_drafts() -> None:
    drafting = Drafting("auto", by_position=((5, 4), (3, 1)))
    stats = Stats(1, "decode", 1, 0, 9, 10, 64, steps=9, drafting=drafting)
    assert _histogram([stats]) == (4, 2, 3)  # nine steps: four without, two with one guess, three with two
    assert _histogram([replace(stats, drafting=None)]) == (9,)


def test_another_text_is_no_figure() -> None:
    base = VariantResult(variant("INT4", NAIVE), READS, 4.5, "", {}, [turn((1, 2), 1.0)])
    other = VariantResult(variant("INT4 + x", "INT4", same_text=True), READS, 4.5, "", {}, [turn((1, 3), 1.0)])
    with pytest.raises(LocalInferError, match="other tokens than INT4"):
        _check([base, other])
    unsteady = VariantResult(variant("INT4", NAIVE), READS, 4.5, "", {}, [turn((1, 2), 1.0), turn((1, 3), 1.0)])
    with pytest.raises(LocalInferError, match="in another round"):
        _check([unsteady])


def test_the_variants_stand_on_each_other() -> None:
    found = variants_of(dict.fromkeys(("BF16", "INT8", "INT4", "INT3"), Path("x")), "INT3", 4, 8, drafts=True)
    names = {one.name for one in found}
    assert all(one.stands_on in names for one in found[1:])
    assert found[-1].name == "INT3 + speculation + KV INT4 + 8 streams"
    assert [one.kv_bits for one in found] == [16] * 6 + [4, 4]


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_a_picture(tmp_path: Path, ending: str, kept: Callable[[str], dict[str, Any]]) -> None:
    path = tmp_path / f"ablation.{ending}"
    draw(kept("starter"), path)
    assert path.read_bytes().startswith(b"<?xml" if ending == "svg" else b"\x89PNG")


@pytest.fixture
def kept() -> Callable[[str], dict[str, Any]]:
    """A report that is kept beside the pages."""
    return lambda name: json.loads((ROOT / "docs/inside/perf" / f"ladder-{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["starter", "qwen2-1.5b"])
def test_the_page_shows_what_was_kept(name: str, kept: Callable[[str], dict[str, Any]]) -> None:
    text = (ROOT / "docs/guides/cost.md").read_text(encoding="utf-8")
    assert part(name) in text
    assert kept(name)["command"] in text
    assert page(text) == text, "run `python -m tests.bench.ablation_page`"


def test_variants_that_do_not_fit_are_not_begun(forms: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localinfer.cost.fit.available_bytes", lambda: 10**6)
    with pytest.raises(DoesNotFit, match="the 8 variants need"):
        results(forms)
