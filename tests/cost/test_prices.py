"""Each formula against an example worked out by hand."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from localinfer.cost import apis
from localinfer.cost.bill import bill_of, usd
from localinfer.cost.energy import EstimateMeter, GivenMeter, marked, source_of, start_meter
from localinfer.cost.prices import Tariff, electricity, hardware, per_million, per_million_at
from localinfer.cost.watts import Rated, rated, table
from localinfer.errors import UsageError

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)


def test_electricity() -> None:
    assert electricity(3.6e6, 0.25).usd == pytest.approx(0.25)  # one kWh
    assert per_million(0.36, 0.20).usd == pytest.approx(0.02)  # 0.36 MJ = 0.1 kWh
    assert "0.25 USD a kWh" in electricity(1, 0.25).assumptions


def test_the_machine_is_used_up_second_by_second() -> None:
    year = 365 * 86400
    share = hardware(year, 1000, 4)
    assert share is not None
    assert share.usd == pytest.approx(250)
    assert hardware(year, None) is None


def test_a_million_tokens() -> None:
    # 100 tok/s: 10,000 s a million. 36 W: 0.36 MJ = 0.1 kWh = 2 cents. 1261.44 USD over 4 years: 1e-5 USD a second.
    assert per_million_at(100, 36, Tariff()) == pytest.approx(0.02)
    assert per_million_at(100, 36, Tariff(hardware_usd=1261.44)) == pytest.approx(0.02 + 0.1)
    assert per_million_at(100, None, Tariff(hardware_usd=1261.44)) == pytest.approx(0.1)
    assert per_million_at(100, None, Tariff()) is None
    assert per_million_at(0, 36, Tariff()) is None


@pytest.mark.parametrize("wrong", [{"usd_per_kwh": -1}, {"hardware_years": 0}, {"watts": float("nan")}])
def test_a_tariff_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Tariff(**wrong)


def test_given_watts_count_all_the_time_and_estimates_only_busy_cores() -> None:
    now = iter([0.0, 2.5])
    given = GivenMeter(40, lambda: next(now))
    assert given.joules() == pytest.approx(100)
    busy = iter([1.0, 3.0])
    guess = EstimateMeter(Rated("x", 280, 64, "data sheet"), lambda: next(busy))
    assert guess.joules() == pytest.approx(2 * 280 / 64)
    assert (source_of(given), source_of(guess), source_of(None)) == ("given", "estimate", "none")
    assert marked("8.8 J", "estimate") == "≈8.8 J"
    assert marked("8.8 J", "rapl") == "8.8 J"


def cpuinfo(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text("\n".join(lines) + "\n\nmodel name\t: EPYC 9654\n")
    return path


def test_the_rated_watts_are_found_by_name_then_by_family_else_not_at_all(tmp_path: Path) -> None:
    named = rated(cpuinfo(tmp_path, "vendor_id\t: AuthenticAMD", "model name\t: AMD EPYC 7763 64-Core Processor"))
    assert named is not None
    assert (named.watts, named.cores) == (280, 64)
    hidden = cpuinfo(
        tmp_path, "vendor_id\t: AuthenticAMD", "cpu family\t: 25", "model\t\t: 1", "model name\t: AMD EPYC"
    )
    found = rated(hidden)
    assert found is not None
    assert "hides its own name" in found.source
    meter = start_meter(root=tmp_path / "none", cpuinfo=hidden)
    assert source_of(meter) == "estimate"
    unknown = cpuinfo(tmp_path, "vendor_id\t: GenuineIntel", "cpu family\t: 6", "model\t\t: 9", "model name\t: Xeon")
    assert rated(unknown) is None
    assert start_meter(root=tmp_path / "none", cpuinfo=unknown) is None
    assert source_of(start_meter(30.0, root=tmp_path / "none", cpuinfo=unknown)) == "given"
    assert rated(tmp_path / "nothing") is None


def test_every_processor_of_the_table_is_whole() -> None:
    for entry in table():
        assert {"name", "watts", "cores", "source"} <= entry.keys()
        assert ("match" in entry) != ("vendor" in entry)
        assert 0.5 < entry["watts"] / entry["cores"] < 40


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3.1-8b"),
        ("groq/llama-3.1-8b-instant", "llama3.1-8b"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo", "llama3.1-8b"),
        ("Qwen/Qwen2.5-Coder-7B-Instruct", "qwen2.5-coder-7b"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct:INT8", "smollm2-135m"),
        ("google/gemma-3-4b-it", "gemma3-4b"),
    ],
)
def test_the_same_model_has_one_name(name: str, plain: str) -> None:
    assert apis.plain_name(name) == plain


def test_the_same_open_model_where_it_is_cheapest() -> None:
    offers = apis.offers_of("meta-llama/Llama-3.1-8B-Instruct", OCTOBER)
    assert len(offers) > 3
    assert offers == sorted(offers, key=lambda offer: (offer.blended, offer.model))
    assert all("8b" in offer.model.lower() and offer.usd_written > 0 for offer in offers)
    assert apis.offers_of("HuggingFaceTB/SmolLM2-135M-Instruct", OCTOBER) == []


def test_a_charge() -> None:
    offer = apis.Offer("p/m", usd_read=0.5, usd_written=2.0, source="a test")
    assert offer.charge(1000, 250) == pytest.approx(0.001)  # 0.0005 + 0.0005
    assert offer.blended == pytest.approx(0.75 * 0.5 + 0.25 * 2.0)


def test_a_named_model_and_one_that_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALINFER_HOME", str(tmp_path))
    found = apis.would_charge("x", "openai/gpt-5-mini")
    assert found is not None
    assert found.model == "openai/gpt-5-mini"
    monkeypatch.setattr(apis, "_offers", lambda now: pytest.fail("it is kept for the day"))
    assert apis.would_charge("y", "openai/gpt-5-mini") == found
    monkeypatch.undo()
    with pytest.raises(UsageError, match="no model whose price is known"):
        apis.offer_named("openai/gpt-900")


def test_a_damaged_price_file_is_looked_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALINFER_HOME", str(tmp_path))
    (tmp_path / "prices.json").write_text("{")
    assert apis.would_charge("HuggingFaceTB/SmolLM2-135M-Instruct", None) is None


def test_a_bill() -> None:
    offer = apis.Offer("p/m", usd_read=0.5, usd_written=2.0, source="a test")
    tariff = Tariff(usd_per_kwh=0.36, hardware_usd=1261.44)
    bill = bill_of(10.0, "estimate", seconds=2.0, read=1000, written=250, tariff=tariff, offer=offer)
    assert bill.electricity_usd == pytest.approx(1e-6)
    assert bill.hardware_usd == pytest.approx(2e-5)
    assert bill.api_usd == pytest.approx(0.001)
    assert bill.in_words() == "≈10.0 J, ≈$0.0000010 of electricity, $0.000020 of the machine; $0.0010 at p/m"
    nothing = bill_of(None, "rapl", seconds=None, read=0, written=0, tariff=Tariff(), offer=None)
    assert (nothing.source, nothing.electricity_usd, nothing.hardware_usd, nothing.api_usd) == (
        "none",
        None,
        None,
        None,
    )
    assert nothing.in_words().startswith("energy – (not known here; `--watts`")


@pytest.mark.parametrize(
    ("amount", "words"), [(12.5, "$12.50"), (0.0, "$0.00"), (0.042, "$0.042"), (7.1e-7, "$0.00000071")]
)
def test_dollars_keep_two_digits(amount: float, words: str) -> None:
    assert usd(amount) == words
