"""The benchmark on a tiny model through the real engine, with a clock that the test moves."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localinfer.bench.against import Runner, run_tests
from localinfer.bench.measure import measure, measure_step, random_tokens
from localinfer.bench.plan import BenchTest, context_for, parse_tests
from localinfer.bench.report import BenchReport, ratio, table
from localinfer.bench.rows import Contender, make_row, percentile
from localinfer.bench.run import run_bench
from localinfer.config import EngineConfig, SamplingParams
from localinfer.cost import machine
from localinfer.cost.machine import Bandwidth
from localinfer.cost.prices import Tariff
from localinfer.cost.roofline import traffic
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Engine, Request
from localinfer.errors import UsageError
from localinfer.events import Finished, output_hash
from tests.engine.running import open_tiny
from tests.engine.test_drafts import DraftRunner
from tests.tiny import make_checkpoint

CONFIG = EngineConfig(threads=1, context=256, draft="off")

PRICE = Tariff(usd_per_kwh=0.36)


class Ticks:
    """A clock that moves by one second a look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("bench") / "tiny")


@pytest.fixture
def engine(tiny: Path) -> Iterator[Engine]:
    with open_engine(tiny, CONFIG) as engine:
        yield engine


@pytest.fixture
def known_memory(monkeypatch: pytest.MonkeyPatch) -> float:
    """The memory's speed is known: 10 GB/s."""
    monkeypatch.setattr("localinfer.bench.run.read_bandwidth", lambda threads, refresh: Bandwidth(1e10, threads, 0.0))
    assert machine.cpu_model()
    return 1e10


@pytest.mark.parametrize(
    ("names", "seen"),
    [
        (["pp256", "tg128"], ["pp256", "tg128"]),
        (["pp512@d4096"], ["pp512@d4096"]),
        (["pp512 @ d4096,tg1", "tg1"], ["pp512@d4096", "tg1"]),
        (["tg8@d0"], ["tg8"]),
        (["tg8x4", "tg8x1", "tg8x4 @ d32"], ["tg8x4", "tg8", "tg8x4@d32"]),
    ],
)
def test_tests_are_named_as_llama_bench_names_them(names: list[str], seen: list[str]) -> None:
    tests = parse_tests(names)
    assert [test.name for test in tests] == seen
    assert parse_tests(seen) == tests


@pytest.mark.parametrize(
    "name",
    ["", "pp", "pp0", "tg-1", "tg12x", "pp5@4096", "pp99999999", "tg1@d1@d1", "PP5", "pp٣", "pp8x2", "tg8x0", "tg8x"],
)
def test_what_is_no_test(name: str) -> None:
    with pytest.raises(UsageError, match="is not a test"):
        parse_tests([name])


def test_the_context_has_room_for_the_longest() -> None:
    assert context_for(parse_tests(["pp512@d4096", "tg128"])) == 4096 + 512 + 2
    assert context_for(parse_tests(["tg1"])) == 3


@pytest.mark.parametrize("name", ["pp40", "pp40@d64", "tg5", "tg5@d64"])
def test_what_one_repetition_counts(engine: Engine, name: str) -> None:
    (test,) = parse_tests([name])
    sample = measure(engine, test, 0, 7, Ticks(), None)
    new = test.generate + 1 if test.generate else 1
    assert len(sample.token_ids) == new
    assert len(sample.gaps_s) == new - 1
    assert sample.gaps_s == (1.0,) * (new - 1)
    assert sample.seconds == (test.generate or 1.0)
    assert sample.tokens == (test.generate or test.prompt)
    assert sample.tok_s == sample.tokens / sample.seconds
    assert sample.joules is None
    again = measure(engine, test, 0, 7, Ticks(), None)
    assert again.token_ids == sample.token_ids
    assert measure(engine, test, 1, 7, Ticks(), None).tokens == sample.tokens


def test_tokens_that_land_together_share_the_time_of_their_step(tiny: Path) -> None:
    """A step of several tokens is no token after long waiting and some in no time."""
    test = BenchTest(0, 120)
    with open_tiny(tiny, reuse=False) as engine:
        plain = measure(engine, test, 0, 7, Ticks(), None)
        prompt = random_tokens(engine, 1, f"7/{test.name}/0")
    drafter = DraftRunner([[*prompt, *plain.token_ids]], "half right")
    with open_tiny(tiny, drafter=drafter, draft_tokens=6, reuse=False) as engine:
        sample = measure(engine, test, 0, 7, Ticks(), None)
    assert sample.token_ids == plain.token_ids
    assert sample.accepted > 20
    assert 114 <= len(sample.gaps_s) <= 120  # the first step may bring some, too
    assert sum(sample.gaps_s) == pytest.approx(sample.seconds)
    assert sample.seconds <= 120 - sample.accepted
    assert 1 / 7 <= min(sample.gaps_s) < max(sample.gaps_s) == 1


def test_prompts_are_ordinary_tokens_and_differ(engine: Engine) -> None:
    one, other = random_tokens(engine, 200, "0/pp200/0"), random_tokens(engine, 200, "0/pp200/1")
    assert one != other
    assert one == random_tokens(engine, 200, "0/pp200/0")
    assert not {*one, *other} & {*engine.tokenizer.eos_ids}


@pytest.mark.parametrize("depth", [0, 70])
def test_streams_say_what_each_would_say_alone(tiny: Path, depth: int) -> None:
    test = BenchTest(0, 6, depth, 3)
    with open_engine(tiny, replace(CONFIG, parallel=3)) as engine:
        sample = measure(engine, test, 0, 7, Ticks(), None)
        assert (sample.tokens, sample.seconds, sample.tok_s, sample.gaps_s) == (18, 6.0, 3.0, (1.0,) * 6)
        assert sample.token_ids == measure(engine, test, 1, 7, Ticks(), None).token_ids
    with open_engine(tiny, CONFIG) as engine:
        alone: list[int] = []
        for i in range(3):
            prompt = random_tokens(engine, depth + 1, f"7/{test.name}/{i}")
            sampling = SamplingParams(temperature=0.0, max_tokens=6, ignore_eos=True)
            ended = [e for e in engine.stream(Request(prompt, sampling)) if isinstance(e, Finished)]
            alone += ended[0].token_ids
        with pytest.raises(UsageError, match="3 sequences do not run at once"):
            measure(engine, test, 0, 7, Ticks(), None)
    assert sample.token_ids == tuple(alone)


def test_weights_are_read_once_for_all_streams(engine: Engine, tiny: Path) -> None:
    who = Contender(engine.info, "off", traffic(tiny, 8))
    alone = measure(engine, BenchTest(0, 4), 0, 0, Ticks(), None)
    one, four = (make_row(BenchTest(0, 4, 0, n), who, [alone], 1e6, PRICE) for n in (1, 4))
    assert (one.batch, four.batch) == (1, 4)
    assert one.gb_s is not None
    assert four.gb_s is not None
    assert one.gb_s / 4 < four.gb_s < one.gb_s / 3


def test_a_context_that_is_too_short_is_said(engine: Engine) -> None:
    with pytest.raises(UsageError) as error:
        measure(engine, BenchTest(512, 0), 0, 0, Ticks(), None)
    assert error.value.hint == "add `-c 514`"


def test_steps_of_several_rows(tiny: Path) -> None:
    with open_engine(tiny, replace(CONFIG, parallel=4)) as engine:
        for rows in (1, 3, 4):
            assert measure_step(engine, rows, 5, 0, Ticks()) == [1.0] * 5
        with pytest.raises(UsageError, match="5 sequences do not run at once"):
            measure_step(engine, 5, 5, 0, Ticks())
        assert measure_step(engine, 4, 2, 0, Ticks()) == [1.0] * 2


def test_rows_sum_up_repetitions(engine: Engine, tiny: Path) -> None:
    (test,) = parse_tests(["tg4"])
    samples = [measure(engine, test, i, 0, Ticks(), None) for i in range(3)]
    samples[1] = replace(samples[1], tok_s=4.0, gaps_s=(0.25,) * 4, joules=8.0)
    who = Contender(engine.info, "off", traffic(tiny, 8))
    row = make_row(test, who, samples, 1e6, PRICE)
    assert (row.tok_s, row.tok_s_median) == (2.0, 1.0)
    assert row.tok_s_sd == pytest.approx(3**0.5)
    read = traffic(tiny, 8).bytes_per_token(2)
    assert row.gb_s == pytest.approx(2.0 * read / 1e9)
    assert row.bandwidth_share == pytest.approx(2.0 * read / 1e6)
    assert (row.itl_p50_ms, row.itl_p99_ms, row.ttft_ms) == (1000.0, 1000.0, 1000.0)
    assert row.joules_per_token is None
    assert row.acceptance is None
    assert row.output_hash == output_hash(samples[0].token_ids)
    priced = make_row(test, who, [replace(s, joules=8.0) for s in samples], 1e6, PRICE)
    assert priced.joules_per_token == 2.0
    assert priced.usd_per_mtok == pytest.approx(0.2)
    read_row = make_row(BenchTest(4, 0), who, samples, 1e6, PRICE)
    assert read_row.gb_s is None
    drafted = make_row(test, replace(who, draft="lookup"), [replace(samples[0], drafted=4, accepted=3)], 1e6, PRICE)
    assert drafted.acceptance == 0.75
    assert drafted.gb_s is None


def test_percentiles() -> None:
    values = [float(i) for i in range(1, 101)]
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile([3.0], 0.99) == 3.0


def test_hashes_are_fixed() -> None:
    assert output_hash([]) == "e3b0c44298fc1c14"
    assert output_hash([1, 2, 3]) != output_hash([1, 2, 4])
    assert output_hash([1]) == "67abdd721024f0ff"


def test_contenders_take_turns(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    def noted(call: Callable[..., object]) -> Callable[..., object]:
        def measured(engine: Engine, *rest: object) -> object:
            turns.append(engine.info.model)
            return call(engine, *rest)

        return measured

    monkeypatch.setattr("localinfer.bench.against.measure", noted(measure))
    with open_engine(tiny, CONFIG, name="A") as a, open_engine(tiny, CONFIG, name="B") as b:
        runners = [Runner(engine, Contender(engine.info, "off", None)) for engine in (a, b)]
        said: list[tuple[str, int, int]] = []
        rows = run_tests(
            parse_tests(["pp8", "tg2"]),
            {"pp8": runners, "tg2": runners},
            repetitions=2,
            on_progress=lambda *words: said.append(words),
        )
    assert "".join(turns) == "ABABAB" * 2
    assert [[row.test for row in here] for here in rows] == [["pp8"] * 2, ["tg2"] * 2]
    assert all(len({row.output_hash for row in here}) == 1 for here in rows)
    assert said[0] == ("pp8 cpu", 0, 12)
    assert said[-1] == ("done", 12, 12)


def run(tiny: Path, **changes: object) -> BenchReport:
    config = replace(CONFIG, context=None)
    return run_bench(
        tiny,
        config,
        parse_tests(["pp32", "tg4", "tg4@d40"]),
        name="org/tiny",
        repetitions=2,
        **changes,  # type: ignore[arg-type]
    )


JSON_ROW = {
    *("test", "batch", "bits", "kv_bits", "draft", "tok_s", "tok_s_sd", "gb_s", "bandwidth_share", "ttft_ms"),
    *("bits_per_weight", "load_s", "peak_share"),
    *("itl_p50_ms", "itl_p99_ms", "acceptance", "joules_per_token", "usd_per_mtok", "output_hash"),
}


def test_the_report_has_the_keys_that_scripts_lean_on(tiny: Path, known_memory: float) -> None:
    report = run(tiny, rows=[1, 2])
    found = json.loads(json.dumps(report.to_json()))
    assert found.keys() == {"machine", "model", "rows", "peers", "ladder"}
    assert {"cpu", "cores", "isa", "read_gb_s", "int8_tops"} <= found["machine"].keys()
    assert found["machine"]["read_gb_s"] == 10.0
    assert found["model"]["name"] == "org/tiny"
    assert found["model"]["bytes_per_token"] == traffic(tiny, 8).bytes_per_token()
    assert [row.get("test", row.get("n_rows")) for row in found["rows"]] == ["pp32", "tg4", "tg4@d40", 1, 2]
    for row in found["rows"][:3]:
        assert row.keys() >= JSON_ROW
    assert found["rows"][3]["step_over_one"] == 1.0
    assert found["rows"][3]["step_ms"] > 0
    assert found["peers"] == found["ladder"] == []
    again = run(tiny)
    assert [row.output_hash for row in again.rows] == [row.output_hash for row in report.rows]


def test_the_table_looks_like_llama_benchs(tiny: Path, known_memory: float) -> None:
    text = table(run(tiny, rows=[1, 2]))
    lines = text.splitlines()
    assert re.fullmatch(r"\| model +\| +size \| +bpw \| +params \| backend +\| .*t/s \|.*output +\|", lines[0])
    assert set(lines[1]) <= set("|-: ")
    assert len({len(line) for line in lines[:5]}) == 1
    assert re.search(r"\| org/tiny BF16 .*\| pp32 +\| +[0-9.]+ ± [0-9.]+ \|", lines[2])
    assert "tg4@d40" in lines[4]
    assert "reads 10.0 GB/s, " in lines[-1]
    assert re.fullmatch(r"ready [0-9.]+ s after opening, [0-9.]+ [MG]B of memory at most until then", lines[-2])
    assert text.endswith("\n")


def test_llamacpp_is_the_yardstick(tmp_path: Path, known_memory: float) -> None:
    pytest.importorskip("llama_cpp")
    from localinfer.hub.importing import import_file
    from tests.hub.test_starter import write_gguf

    write_gguf(tmp_path / "m.gguf")
    model = import_file(tmp_path / "m.gguf")
    report = run_bench(
        model.path,
        EngineConfig(threads=1),
        parse_tests(["pp8", "tg4"]),
        name=model.ref,
        repetitions=2,
        against=tmp_path / "m.gguf",
    )
    assert [peer.test for peer in report.peers] == ["pp8", "tg4"]
    assert [peer.backend for peer in report.peers] == ["llamacpp"] * 2
    assert "flash attention" in report.peers[0].settings
    assert {peer.threads for peer in report.peers} == {1}
    found = report.to_json()["peers"][1]
    assert found["ratio"] == pytest.approx(report.rows[1].tok_s_median / report.peers[1].tok_s_median)
    text = table(report)
    assert text.count("| llamacpp ") == 2
    assert f"{ratio(report.rows, report.peers[1]):.2f} x llamacpp" in text


@pytest.mark.parametrize(("hidden", "tried"), [(32, 2), (64, 3)])
def test_every_setting_of_the_peer_is_tried_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: int, tried: int
) -> None:
    pytest.importorskip("llama_cpp")
    from localinfer.bench import llamacpp
    from localinfer.engine.llamacpp import open_llamacpp
    from tests.hub.test_starter import write_gguf

    write_gguf(tmp_path / "m.gguf", hidden=hidden)
    opened: list[Engine] = []

    def noted(path: Path, config: EngineConfig, **kwargs: Any) -> Engine:
        opened.append(open_llamacpp(path, config, **kwargs))
        return opened[-1]

    monkeypatch.setattr(llamacpp, "open_llamacpp", noted)
    with llamacpp.best_llamacpp(tmp_path / "m.gguf", EngineConfig(threads=1, context=64), ["tg"]) as peers:
        assert peers.keys() == {"tg"}
        assert len(opened) == tried + 1
        assert peers["tg"].engine is opened[-1]
        assert "the fastest" in peers["tg"].who.settings
        opened[-1].step()
    for engine in opened:
        with pytest.raises(UsageError, match="closed"):
            engine.step()
