"""Kernels without a bug are right under every schedule and no sanitizer objects; the fragments are the manual's."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cuda.build import KINDS, SCHEDULES, run

pytestmark = pytest.mark.xdist_group("cuda")

Program = Callable[[str, str], Path]


@pytest.mark.parametrize("kind", KINDS)
def test_clean_kernels_are_right_and_nothing_is_reported(kind: str, program: Program) -> None:
    for schedule in SCHEDULES:
        done = run(program("clean", kind), schedule)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.count(": 0 wrong\n") == 5


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_fragments_are_those_of_the_manual(schedule: int, program: Program) -> None:
    done = run(program("fragments", "plain"), schedule)
    assert (done.stdout, done.returncode) == ("s8 0 f16 0 bf16 0 sm_75 0 wrong\n", 0)


def interesting_floats() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Every half, what lies between two of them, their neighbours, and floats of all sizes."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    between = ((halves[1:].astype(np.float64) + halves[:-1]) / 2).astype(np.float32)
    edges = np.concatenate([halves, between, np.array([65504, 65519.996, 65520, 65536, np.inf], np.float32)])
    near = np.concatenate([np.nextafter(edges, np.float32(np.inf)), np.nextafter(edges, np.float32(-np.inf)), edges])
    bits = np.random.default_rng(1).integers(0, 2**32, 100_000, dtype=np.uint32).view(np.float32)
    return np.concatenate([near, -near, bits])


def test_conversions_of_halves(program: Program) -> None:
    floats = interesting_floats()
    done = subprocess.run([program("numbers", "plain")], input=floats.tobytes(), stdout=subprocess.PIPE, check=True)
    widened = np.frombuffer(done.stdout[: 4 * 65536], np.float32)
    narrowed = np.frombuffer(done.stdout[4 * 65536 :], np.uint16)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = floats.astype(np.float16)
    np.testing.assert_array_equal(widened, np.arange(65536).astype(np.uint16).view(np.float16).astype(np.float32))
    nan = np.isnan(floats)
    np.testing.assert_array_equal(narrowed[~nan], expected.view(np.uint16)[~nan])
    assert set(narrowed[nan]) == {0x7FFF}
