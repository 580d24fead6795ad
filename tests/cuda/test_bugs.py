"""Kernels with one deliberate bug each: none may pass for right."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cuda.build import SCHEDULES, SOURCES, run

pytestmark = pytest.mark.xdist_group("cuda")

Program = Callable[[str, str], Path]

REPORTED = {
    "mask_never_arrives": "DEADLOCK: thread 0 waits for its warp at line",
    "lane_outside": "the shuffle reads lane 20, which is not in the mask",
    "not_in_own_mask": "the calling lane is not in its own mask",
    "lane_beyond": "which is not in the mask",
    "two_collectives": "warp collective mismatch: others wait in the one at line",
    "divergent_barrier": "divergent sync_block: others wait in the one at line",
    "deadlock": "thread 5 waits in sync_block at line",
    "left_early": "and 23 more wait; 33 are over",
    "uncommitted": "the thread ends with copies that it did not commit",
    "never_waited": "the thread ends with copies that it did not wait for",
    "copy_to_global": "copy_async16 to memory that is not shared",
    "misaligned_16": "misaligned load of 16 bytes: the address is 8 past a multiple",
    "misaligned_8": "misaligned load of 8 bytes: the address is 4 past a multiple",
    "misaligned_4": "misaligned load of 4 bytes: the address is 1 past a multiple",
    "misaligned_copy": "misaligned copy_async16 of 16 bytes: the address is 4 past a multiple",
    "load_from_shared": "load from shared memory; it reads global memory only",
    "no_dynamic_shared": "dynamic shared memory, and the launch asked for none",
    "too_much_shared": "65536 bytes of static shared memory; a block has at most 49152",
}
"""What the emulator stops at, whatever the schedule."""

WRONG = {
    "missing_sync_warp",
    "missing_sync_block",
    "missing_second_barrier",
    "uninitialized",
    "uninitialized_dynamic",
    "missing_wait",
    "wait_for_too_few",
    "copy_over_read",
}
"""What shows in the values."""

RACES = {
    "missing_sync_warp",
    "missing_sync_block",
    "missing_second_barrier",
    "shuffle_is_no_barrier",
    "copy_over_read",
}
OUT_OF_BOUNDS = {
    "past_the_end",
    "past_the_end_load16",
    "past_the_end_copy",
    "past_the_shared_end",
    "past_the_dynamic_end",
}


def marked_line(case: str) -> int | None:
    """Where the source says that the report should point."""
    for number, line in enumerate((SOURCES / "bugs.cpp").read_text().splitlines(), 1):
        if line.endswith(f"// here: {case}"):
            return number
    return None


def test_every_case_is_tried() -> None:
    cases = set(re.findall(r"CASE\((\w+)[,)]", (SOURCES / "bugs.cpp").read_text())) - {"name"}
    assert cases == {*REPORTED, *WRONG, *RACES, *OUT_OF_BOUNDS}


@pytest.mark.parametrize("case", REPORTED)
def test_the_emulator_stops_at(case: str, program: Program) -> None:
    line = marked_line(case)
    for schedule in SCHEDULES:
        done = run(program("bugs", "plain"), case, schedule)
        assert done.returncode == 86
        assert re.match(r"EMU ERROR block\(0,0,0\) thread \d+ line \d+: ", done.stderr)
        assert REPORTED[case] in done.stderr
        assert line is None or f"line {line}" in done.stderr


@pytest.mark.parametrize("case", sorted(WRONG))
def test_values_are_wrong_under_every_schedule(case: str, program: Program) -> None:
    for schedule in SCHEDULES:
        done = run(program("bugs", "plain"), case, schedule)
        assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("case", sorted(RACES))
def test_a_race_is_reported_with_its_line(case: str, program: Program) -> None:
    done = run(program("bugs", "tsan"), case, 0)
    assert done.returncode == 66
    assert "WARNING: ThreadSanitizer: data race" in done.stderr
    assert f"bugs.cpp:{marked_line(case)}" in done.stderr


@pytest.mark.parametrize("case", sorted(OUT_OF_BOUNDS))
def test_out_of_bounds_is_reported_with_its_line(case: str, program: Program) -> None:
    done = run(program("bugs", "asan"), case, 0)
    assert done.returncode == 1
    assert "ERROR: AddressSanitizer: heap-buffer-overflow" in done.stderr
    assert f"bugs.cpp:{marked_line(case)}" in done.stderr
