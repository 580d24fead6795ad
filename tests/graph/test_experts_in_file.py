"""Experts that stay in a file: the bits of experts that are held, each read once a step, and damage that is told."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer import native
from localinfer.errors import Corrupt, DoesNotFit, NotSupported
from localinfer.graph import experts, memory
from localinfer.graph.experts import ExpertFile, Slots, mixtures_of
from localinfer.graph.packing import Packer
from localinfer.graph.program import Loader, load_program
from localinfer.graph.weights import Checkpoint
from tests.graph.packed import quantized
from tests.graph.test_mixture import N, feed, program
from tests.graph.test_mixture import model as model  # the same mixtures
from tests.graph.variants import make_variant

ALL = 1 << 30


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Layers of 12 experts, in groups."""
    folder = tmp_path_factory.mktemp("experts")
    return quantized(make_variant("glm4_moe-groups", folder / "source"), folder / "q", 4, 32)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[ExpertFile]:
    """The files that were opened."""
    found: list[ExpertFile] = []
    begin = ExpertFile.__init__

    def kept(self: ExpertFile, *given: Any) -> None:
        begin(self, *given)
        found.append(self)

    monkeypatch.setattr(ExpertFile, "__init__", kept)
    return found


@pytest.mark.parametrize("nbytes", [0, ALL])
@pytest.mark.parametrize(("threads", "chunk"), [(1, 1), (2, 5), (3, N)])
def test_the_same_bits(model: Path, tmp_path: Path, nbytes: int, threads: int, chunk: int) -> None:
    meant = feed(program(model), 1)
    made = program(model, threads=threads, experts=Slots(tmp_path, nbytes))
    assert np.array_equal(feed(made, chunk), meant)
    assert np.array_equal(feed(made, 3), meant)  # some of them are held by now
    few = program(model, threads=threads, max_rows=3, experts=Slots(tmp_path, nbytes))
    assert np.array_equal(feed(few, chunk), meant)


def test_each_expert_is_read_once_a_step(path: Path, tmp_path: Path, opened: list[ExpertFile]) -> None:
    made = program(path, experts=Slots(tmp_path, 0))
    pool, each = opened[0].pool, opened[0].layers[0].nbytes
    counts = [len(op.experts) for op in mixtures_of(Checkpoint(path))]
    assert (pool.slots, pool.held, pool.experts) == (max(counts), 0, sum(counts))
    feed(made, N)
    assert pool.wanted == pool.read <= sum(counts)  # no step before it
    assert pool.read_bytes == pool.read * each
    assert pool.held * each == pool.held_bytes <= pool.slots_bytes == pool.slots * each
    resident = program(path)
    assert resident.weight_bytes - made.weight_bytes == sum(counts) * _packed(path) - pool.slots_bytes


def _packed(path: Path) -> int:
    """Bytes of an expert without what fills its last page."""
    checkpoint = Checkpoint(path)
    loader = Loader(checkpoint, native.Program(64, 1), 1, 64, None, lambda done, all_: None, even_keys=False)  # type: ignore[arg-type]
    one = mixtures_of(checkpoint)[0].experts[0]
    assert isinstance(loader, Packer)
    arrays = [
        loader.from_arrays(linears, interleave) for linears, interleave in ((one.inputs(), True), ((one.down,), False))
    ]
    return sum(weight.nbytes for weight in arrays)


def test_nothing_is_read_again_where_all_have_room(path: Path, tmp_path: Path, opened: list[ExpertFile]) -> None:
    made = program(path, experts=Slots(tmp_path, ALL))
    pool = opened[0].pool
    assert pool.slots == pool.experts
    feed(made, N)
    before = pool.read
    feed(made, 1)
    feed(made, 7)
    assert pool.read == before == pool.held


def test_experts_that_are_wanted_in_turn_do_not_push_each_other_out(
    path: Path, tmp_path: Path, opened: list[ExpertFile]
) -> None:
    """Least recently used would go first elsewhere; then each pass over all layers would read all of them again."""
    program(path, experts=Slots(tmp_path, 0))
    each, all_ = opened[0].layers[0].nbytes, opened[0].pool.experts
    made = program(path, experts=Slots(tmp_path, (all_ - 3) * each))
    pool = opened[1].pool
    assert pool.slots == all_ - 3
    feed(made, N)
    wanted, read = pool.wanted, pool.read
    for _ in range(4):
        feed(made, N)
    assert pool.wanted == 5 * wanted
    assert pool.read - read <= 4 * 2 * 3


def test_a_file_that_is_cut_short_while_it_is_in_use_ends_a_step_and_no_more(
    path: Path, tmp_path: Path, opened: list[ExpertFile]
) -> None:
    meant = feed(program(path), N)
    made = program(path, experts=Slots(tmp_path, 0))
    file = opened[0].path
    whole = file.read_bytes()
    os.truncate(file, memory.PAGE + 100)
    for _ in range(2):
        with pytest.raises(
            Corrupt, match=r"\.experts was cut short, or cannot be read any more, while it was in use"
        ) as e:
            feed(made, N)
        assert e.value.hint
    assert opened[0].pool.held < opened[0].pool.experts
    with file.open("r+b") as again:  # the same file, whole again
        again.write(whole)
    assert np.array_equal(feed(made, N), meant)


def test_what_a_stopped_step_did_not_read_is_not_taken_for_read(path: Path, tmp_path: Path) -> None:
    rows, count = 1500, 48
    long = load_program(
        Checkpoint(path), threads=2, context=rows, kv_blocks=count, max_rows=2, experts=Slots(tmp_path, 0)
    )
    at = np.arange(rows, dtype=np.int32)
    given = (at % 300, at, np.zeros(rows, np.int32), np.arange(count, dtype=np.int32)[None])
    meant = feed(program(path), N)

    def forever() -> None:
        while True:
            long.step(*given, at[:0], np.empty((0, long.vocab), np.float32))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.03)
        with pytest.raises(KeyboardInterrupt):
            forever()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert np.array_equal(feed(long, 1), meant)


@pytest.mark.parametrize("damage", ["cut", "longer", "header", "first", "link", "folder-gone"])
def test_a_file_that_is_not_what_it_should_be_is_made_again(
    path: Path, tmp_path: Path, opened: list[ExpertFile], damage: str
) -> None:
    folder = tmp_path / "a" / "b"
    meant = feed(program(path, experts=Slots(folder, 0)), N)
    assert opened[0].made
    program(path, experts=Slots(folder, 0))
    assert not opened[1].made
    file = opened[0].path
    assert file.stat().st_mode & 0o777 == 0o600
    whole = file.read_bytes()
    if damage == "cut":
        os.truncate(file, len(whole) - 1)
    elif damage == "longer":
        os.truncate(file, len(whole) + 1)
    elif damage == "link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    elif damage == "folder-gone":
        file.unlink()
        folder.rmdir()
    else:
        at = 3 if damage == "header" else memory.PAGE + 77
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    assert np.array_equal(feed(program(path, experts=Slots(folder, 0)), N), meant)
    assert opened[2].made
    assert file.read_bytes() == whole
    assert not file.is_symlink()
    assert [one.name for one in folder.iterdir()] == [file.name]


def test_making_it_tells_how_far_it_is_and_leaves_nothing_when_stopped(path: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    program(path, experts=Slots(tmp_path / "x", 0, lambda done, all_: told.append((done, all_))))
    assert told == sorted(told)
    assert told[-1][0] + memory.PAGE == told[-1][1]

    def stop(done: int, all_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        program(path, experts=Slots(tmp_path / "y", 0, stop))
    assert list((tmp_path / "y").iterdir()) == []


def test_the_oldest_go_where_the_disk_has_no_room(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[ExpertFile]
) -> None:
    for age, name in enumerate(("new", "old", "oldest")):
        (tmp_path / f"{name}.experts").write_bytes(b"x")
        os.utime(tmp_path / f"{name}.experts", (1000 - age, 1000 - age))
    left = {0: True, 1: True, 2: False, 3: False}

    def free(folder: Path) -> int:
        return 0 if left[3 - len(list(folder.glob("*.experts")))] else ALL << 4

    monkeypatch.setattr(experts, "_free", free)
    program(path, experts=Slots(tmp_path, 0))
    assert {one.name for one in tmp_path.iterdir()} == {"new.experts", opened[0].path.name}
    monkeypatch.setattr(experts, "_free", lambda folder: 1000)
    with pytest.raises(DoesNotFit, match=r"packed experts take .* where 1.0 kB is free") as e:
        program(path, experts=Slots(tmp_path / "y", 0))
    assert e.value.hint


def test_experts_of_a_layer_must_be_alike(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    form = Checkpoint.form
    odd = mixtures_of(Checkpoint(path))[1].experts[3].down.name
    monkeypatch.setattr(Checkpoint, "form", lambda self, name: (8, 32) if name == odd else form(self, name))
    with pytest.raises(NotSupported, match="quantized differently in one layer"):
        program(path, experts=Slots(tmp_path, 0))


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([], "0 layers"),
        ([(0, 0, 64)], "0 experts"),
        ([(0, 1 << 40, 64)], "1099511627776 experts"),
        ([(0, 4, 0)], "an expert of 0 bytes"),
        ([(0, 4, 100)], "an expert of 100 bytes"),
        ([(0, 4, 1 << 40)], "an expert of 1099511627776 bytes"),
    ],
)
def test_other_layers_are_refused(tmp_path: Path, layers: list[tuple[int, int, int]], words: str) -> None:
    with (tmp_path / "x").open("w+b") as file, pytest.raises(ValueError, match=words):
        native.ExpertPool(file.fileno(), "x", layers, 0)


@pytest.mark.parametrize(
    "layer", [(0, 17, 64), (1, 16, 64), (1 << 63, 1, 64), ((1 << 64) - 64, 1, 64), (0, 2, 1 << 32)]
)
def test_a_file_that_is_too_short_is_refused_before_it_is_read(tmp_path: Path, layer: tuple[int, int, int]) -> None:
    with (tmp_path / "x").open("w+b") as file:
        file.truncate(1024)
        with pytest.raises(Corrupt, match="x is shorter than its layers need"):
            native.ExpertPool(file.fileno(), "x", [layer], 0)


def test_a_pool_must_have_the_experts(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ExpertFile.arguments

    def program_with(**changed: Any) -> None:
        monkeypatch.setattr(ExpertFile, "arguments", lambda self, op: arguments(self, op) | changed)
        program(path, experts=Slots(tmp_path, 0))

    with pytest.raises(ValueError, match="layer 9 of a pool"):
        program_with(pool_layer=9)
    with pytest.raises(ValueError, match="no values, and there is no pool"):
        program_with(pool=None)


def test_weights_without_values_cannot_be_looked_into() -> None:
    bare = native.pack_bf16([np.zeros((64, 64), np.uint16)]).without_values()
    assert (bare.rows, bare.cols, bare.nbytes) == (64, 64, 64 * 64 * 2)
    with pytest.raises(ValueError, match="no values"):
        bare.row(0)
    with pytest.raises(ValueError, match="without values"):
        bare.write(1, 0)
    with pytest.raises(ValueError, match="without values"):
        bare.equals(0, 0)
