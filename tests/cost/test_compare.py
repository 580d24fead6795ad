"""The economics of a token, worked out by hand; and tables of machines that are not as they should be."""

from dataclasses import replace
from pathlib import Path

import pytest

from localinfer.cost.apis import Offer
from localinfer.cost.compare import (
    COMPUTES,
    READS,
    Way,
    Work,
    at_provider,
    break_even,
    cheapest,
    on_machine,
    speed,
    this_machine,
)
from localinfer.cost.machines import Machine, machines
from localinfer.cost.predict import LAYER_S
from localinfer.cost.prices import Tariff
from localinfer.errors import Corrupt

USER_FILE = Machine(
    key="x",
    name="box",
    kind="own",
    backend="cpu",
    gb_s=100,
    int8_tops=1,
    memory_gb=8,
    watts=36,
    usd=1261.44,
    source="s",
    date="d",
)
RENT = Machine(
    key="y",
    name="cloud",
    kind="rent",
    backend="cpu",
    gb_s=100,
    int8_tops=1,
    memory_gb=8,
    usd_per_hour=0.36,
    source="s",
    date="d",
)
WORK = Work(weights_bytes=10**9, kv_bytes=10**7, parameters=2 * 10**9, layers=0, batch=1, total_bytes=2 * 10**9)


def way(tok_s: float, fixed: float, marginal: float, name: str = "a", kind: str = "own") -> Way:
    return Way(
        name=name,
        kind=kind,
        runs=True,
        tok_s=tok_s,
        is_estimate=True,
        usd_per_mtok=marginal + fixed / (tok_s * 86400) * 1e6,
        fixed_usd_per_day=fixed,
        marginal_usd_per_mtok=marginal,
        source="",
    )


def test_one_text_waits_for_memory_and_many_for_arithmetic() -> None:
    assert speed(USER_FILE, WORK) == pytest.approx(100e9 * READS / 1.01e9)
    many = Work(10**9, 10**7, 2 * 10**9, 0, 32, 0)
    assert speed(USER_FILE, many) == pytest.approx(1e12 * COMPUTES / (2 * 2e9))
    layered = Work(10**9, 10**7, 2 * 10**9, 100, 1, 0)
    assert 1 / speed(USER_FILE, layered) == pytest.approx(1.01e9 / (100e9 * READS) + 100 * LAYER_S)


def test_what_is_bought_and_what_is_rented() -> None:
    tok_s = speed(USER_FILE, WORK)
    bought = on_machine(USER_FILE, WORK, Tariff())
    # 1261.44 USD over 4 years are 0.864 a day; 36 W at 0.2 a kWh are 2e-6 a second.
    assert bought.fixed_usd_per_day == pytest.approx(0.864)
    assert bought.marginal_usd_per_mtok == pytest.approx(2e-6 * 1e6 / tok_s)
    assert bought.usd_per_mtok == pytest.approx((2e-6 + 1e-5) * 1e6 / tok_s)
    assert bought.usd_at(86400) == pytest.approx(2 / tok_s + 10.0)
    assert bought.usd_at(tok_s * 86400 * 1.01) is None
    rented = on_machine(RENT, WORK, Tariff())
    assert rented.fixed_usd_per_day == 0
    assert rented.usd_per_mtok == rented.usd_at(10) == pytest.approx(1e-4 * 1e6 / tok_s)


def test_what_does_not_fit_or_run_costs_nothing_we_could_tell() -> None:
    small = on_machine(USER_FILE, Work(10**9, 0, 10**9, 0, 1, 9 * 10**9), Tariff())
    assert (small.runs, small.tok_s, small.usd_per_mtok) == (False, None, None)
    assert small.why_not == "does not fit in its memory"
    unproved = on_machine(replace(USER_FILE, backend="cuda"), WORK, Tariff())
    assert unproved.runs
    assert unproved.source.endswith("; our kernels were never measured on a card")
    untried = on_machine(replace(USER_FILE, needs="another system"), WORK, Tariff())
    assert (untried.runs, untried.why_not) == (False, "needs another system")
    assert cheapest([small, untried]) is None


def test_this_machine() -> None:
    free = this_machine(100.0, 36.0, Tariff(), is_estimate=True, source="x")
    assert free.usd_per_mtok == pytest.approx(0.02)
    priced = this_machine(100.0, 36.0, Tariff(hardware_usd=1261.44), is_estimate=True, source="x")
    assert priced.usd_per_mtok == pytest.approx(0.12)
    assert this_machine(100.0, None, Tariff(), is_estimate=True, source="x").usd_per_mtok is None


def test_break_even() -> None:
    bought, served = way(1000, 0.864, 0.02), at_provider(Offer("p/m", 0.1, 0.5, "t"))
    assert served.usd_per_mtok == pytest.approx(0.2)
    volume = break_even(bought, served)
    assert volume == pytest.approx(0.864 / 0.18 * 1e6)
    assert volume is not None
    assert bought.usd_at(volume) == pytest.approx(served.usd_at(volume))
    assert break_even(way(1000, 0.864, 0.3), served) is None  # its tokens cost more
    assert break_even(way(10, 0.864, 0.02), served) is None  # it cannot write so many
    assert break_even(way(1000, 0, 0.02), served) == 0


def test_the_cheapest_depends_on_the_volume() -> None:
    bought, served = way(1000, 0.864, 0.02, "box"), at_provider(Offer("p/m", 0.1, 0.5, "t"))
    best_busy, best_idle = cheapest([served, bought]), cheapest([served, bought], per_day=1000)
    assert best_busy is bought
    assert best_idle is served
    assert cheapest([served, bought], "rent") is None


def test_our_table_is_whole() -> None:
    found = machines(Path("/nowhere/machines.toml"))
    assert len({machine.name for machine in found}) == len(found) > 10
    assert all(machine.usd_per_hour > 0 if machine.kind == "rent" else machine.usd > 0 for machine in found)
    assert all(machine.date[:2] == "20" and machine.source for machine in found)


MINE = """
[mine]
name = "my box"
kind = "own"
backend = "cpu"
gb_s = 50
int8_tops = 2.5
memory_gb = 16
watts = 60
usd = 0
source = "mine"
date = "2026-11"
"""


def test_machines_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "machines.toml"
    path.write_text(MINE + MINE.replace("[mine]", "[mini-n100]").replace("my box", "my N100"))
    names = [machine.name for machine in machines(path)]
    assert "my box" in names
    assert "my N100" in names
    assert "mini PC, Intel N100, 16 GB" not in names


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('kind = "own"', 'kind = "lease"', "`kind` must be"),
        ("gb_s = 50", "", "`gb_s` is missing"),
        ("gb_s = 50", "gb_s = nan", "must be a number"),
        ("gb_s = 50", "gb_s = -1", "must be a number"),
        ("gb_s = 50", "gb_s = true", "must be a number"),
        ("gb_s = 50", 'gb_s = 50\ncolour = "red"', "`colour` is no key"),
        ('backend = "cpu"', 'backend = "tpu"', "`backend` must be"),
        ('name = "my box"', 'name = "my\\u001b box"', "must be a line of text"),
        ("[mine]", "mine = 3\n[x]", "`kind` must be"),
        ("[mine]", "[mine", "is not TOML"),
    ],
)
def test_a_table_that_cannot_be(tmp_path: Path, before: str, after: str, words: str) -> None:
    path = tmp_path / "machines.toml"
    path.write_text(MINE.replace(before, after))
    with pytest.raises(Corrupt, match=words):
        machines(path)
