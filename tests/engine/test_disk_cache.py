"""KV blocks on disk: found by content alone, whole or not at all, bounded, private; and texts that go on from them."""

import os
import random
import stat
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from localinfer.engine.disk_cache import NAME_BYTES, DiskCache
from localinfer.engine.engine import StepEngine
from localinfer.engine.protocol import Request
from localinfer.events import Finished
from localinfer.paths import kv_dir, texts_dir
from tests.engine.running import GREEDY, SAMPLED, open_tiny
from tests.tiny import make_checkpoint

SIZE = 5000


class Memory:
    """Blocks in an array, in place of a program."""

    kv_block_bytes = SIZE

    def __init__(self) -> None:
        self.blocks = np.zeros((8, SIZE), np.uint8)

    def read_kv(self, block: int, out: NDArray[np.uint8], /) -> None:
        out[:] = self.blocks[block]

    def write_kv(self, block: int, values: NDArray[np.uint8], /) -> None:
        self.blocks[block] = values


def disk_cache(folder: Path, memory: Memory, *, identity: str = "m", limit: int = 1 << 30) -> DiskCache:
    return DiskCache(folder, memory, identity=identity, limit_bytes=limit)


def filled(folder: Path, count: int, *, limit: int = 1 << 30) -> tuple[Memory, list[bytes]]:
    """A folder with so many blocks, the cache they came from and their names."""
    memory = Memory()
    memory.blocks[:] = np.random.default_rng(1).integers(0, 256, memory.blocks.shape)
    one = disk_cache(folder, memory, limit=limit)
    names = one.names(list(range(32 * count)), count)
    for block, name in enumerate(names):
        one.keep(name, block % 8)
    one.close()
    return memory, names


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    memory, names = filled(tmp_path / "kv", 3)
    fresh = Memory()
    again = disk_cache(tmp_path / "kv", fresh)
    assert again.count == 3
    for block, name in enumerate(names):
        assert name in again
        assert again.fetch(name, block)
    assert (fresh.blocks[:3] == memory.blocks[:3]).all()
    again.close()
    assert stat.S_IMODE((tmp_path / "kv").stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files(tmp_path))


def test_names_tell_everything_before_apart(tmp_path: Path) -> None:
    one, other = disk_cache(tmp_path, Memory()), disk_cache(tmp_path, Memory(), identity="n")
    tokens = list(range(96))
    names = one.names(tokens, 3)
    assert len(set(names)) == 3
    assert one.names(tokens, 2) == names[:2]
    assert one.names([9, *tokens[1:]], 3)[2] != names[2]
    assert one.names([*tokens[:64], 9, *tokens[65:]], 3)[:2] == names[:2]
    assert not set(other.names(tokens, 3)) & set(names)
    one.close()
    other.close()


def test_broken_files_are_deleted_and_nothing_is_read_from_them(tmp_path: Path) -> None:
    _, names = filled(tmp_path / "kv", 6)
    paths = {bytes.fromhex(path.name): path for path in files(tmp_path / "kv")}
    whole = paths[names[0]].read_bytes()
    paths[names[0]].write_bytes(whole[:-1])
    paths[names[1]].write_bytes(whole + b"x")
    paths[names[2]].write_bytes(b"")
    paths[names[3]].write_bytes(whole[:99] + bytes([whole[99] ^ 1]) + whole[100:])
    paths[names[4]].unlink()
    paths[names[4]].symlink_to("/dev/zero")
    (tmp_path / "kv/notes").write_text("somebody else's")
    fresh = Memory()
    again = disk_cache(tmp_path / "kv", fresh)
    assert [again.fetch(name, 0) for name in names] == [False] * 5 + [True]
    assert again.count == 1
    again.close()
    left = [path for path in files(tmp_path / "kv") if path.name != "notes" and not path.is_symlink()]
    assert [path.name for path in left] == [names[5].hex()]
    assert (tmp_path / "kv/notes").read_text() == "somebody else's"


def test_the_least_recently_used_go(tmp_path: Path) -> None:
    _, names = filled(tmp_path / "kv", 8)
    memory = Memory()
    before = disk_cache(tmp_path / "kv", memory)
    for path in files(tmp_path / "kv"):
        os.utime(path, (1, 1))
    assert before.fetch(names[0], 0)  # used: it stays
    before.close()
    one = disk_cache(tmp_path / "kv", memory, limit=5 * (SIZE + 16))
    more = one.names([7] * 32, 1)[0]
    one.keep(more, 0)
    one.close()
    again = disk_cache(tmp_path / "kv", memory, limit=5 * (SIZE + 16))
    assert 1 <= again.count <= 5
    assert more in again
    assert again.fetch(names[0], 0)
    again.close()
    assert sum(path.stat().st_size for path in files(tmp_path / "kv")) <= 5 * (SIZE + 16)


def test_two_at_once(tmp_path: Path) -> None:
    memory, names = filled(tmp_path / "kv", 2)
    one, other = disk_cache(tmp_path / "kv", memory), disk_cache(tmp_path / "kv", memory)
    new = one.names([3] * 32, 1)[0]
    one.keep(new, 1)
    other.keep(new, 1)
    one.close()
    other.close()
    assert disk_cache(tmp_path / "kv", memory).count == 3
    files(tmp_path / "kv")[0].unlink()  # the other one tidied up
    again = disk_cache(tmp_path / "kv", memory)
    assert sum(again.fetch(name, 0) for name in (*names, new)) == 2
    again.close()


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/dev/full").exists(), reason="nothing refuses root here")
def test_a_disk_that_takes_nothing_ends_keeping_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "kv").write_text("a file where the folder should be")
    one = disk_cache(tmp_path / "kv", Memory())
    name = one.names([1] * 32, 1)[0]
    one.keep(name, 0)
    end = time.monotonic() + 10
    while not one.problem and time.monotonic() < end:
        time.sleep(0.01)
    assert one.problem
    assert name not in one
    one.keep(name, 0)
    one.close()


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    return make_checkpoint(tmp_path / "a", seed=1, head_dim=32), make_checkpoint(tmp_path / "b", seed=2, head_dim=32)


def answered(engine: StepEngine, tokens: tuple[int, ...], sampling: object = GREEDY) -> Finished:
    return next(e for e in engine.stream(Request(tokens, sampling)) if isinstance(e, Finished))  # type: ignore[arg-type]


@pytest.mark.parametrize("kv_bits", [16, 8, 4])
def test_a_text_is_taken_up_in_another_process(models: tuple[Path, Path], kv_bits: int) -> None:
    """At most 31 tokens are read anew, and the answer is the same bit for bit."""
    rng = random.Random(kv_bits)
    tokens = tuple(rng.randrange(3, 256) for _ in range(150))
    with open_tiny(models[0], kv_bits=kv_bits, reuse=False) as plain:
        first = answered(plain, tokens, SAMPLED)
        longer = (*tokens, *first.token_ids, 5, 6)
        want = answered(plain, longer, SAMPLED)
    with open_tiny(models[0], kv_bits=kv_bits, kv_disk_gb=1) as engine:
        assert answered(engine, tokens, SAMPLED).token_ids == first.token_ids
    with open_tiny(models[0], kv_bits=kv_bits, kv_disk_gb=1) as engine:
        assert engine.load().on_disk == (len(tokens) + len(first.token_ids) - 1) // 32
        got = answered(engine, longer, SAMPLED)
        assert got.token_ids == want.token_ids
        assert got.stats.prompt_tokens - got.stats.cached_tokens <= 31 + 2
        again = answered(engine, longer[:-2], SAMPLED)
        assert again.stats.prompt_tokens - again.stats.cached_tokens <= 31
        load = engine.load()
        assert load.used == 0


def test_a_request_may_leave_nothing(models: tuple[Path, Path]) -> None:
    recurrent = make_checkpoint(models[0].parent / "r", "lfm2", seed=11, head_dim=32)
    for model in (models[0], recurrent):
        for remember in (False, True):
            before = {path: path.stat().st_size for folder in (kv_dir(), texts_dir()) for path in files(folder)}
            with open_tiny(model, draft="suffix", remember=True, kv_disk_gb=1, parallel=2) as engine:
                list(engine.stream(Request(tuple(range(3, 103)), SAMPLED, marks=(64,), remember=remember)))
            kept = {path: path.stat().st_size for folder in (kv_dir(), texts_dir()) for path in files(folder)}
            assert (kept != before) == remember


def test_nothing_is_found_by_other_models_and_settings(models: tuple[Path, Path]) -> None:
    tokens = tuple(range(3, 103))
    with open_tiny(models[0], kv_disk_gb=1) as engine:
        answered(engine, tokens)
    for path, kv_bits, context in ((models[1], 8, 256), (models[0], 16, 256), (models[0], 8, 300)):
        with open_tiny(path, kv_disk_gb=1, kv_bits=kv_bits, context=context) as engine:
            assert engine.load().on_disk == 0
            assert answered(engine, tokens).stats.cached_tokens == 0
    with open_tiny(models[0]) as engine:  # not asked for
        assert answered(engine, tokens).stats.cached_tokens == 0
    with open_tiny(models[0], kv_disk_gb=1) as engine:
        assert answered(engine, tokens).stats.cached_tokens == 96


def test_random_chats_over_restarts_say_what_they_say_without_a_disk(models: tuple[Path, Path]) -> None:
    """Forks, evictions from a small cache, files that vanish."""
    rng = random.Random(3)
    texts: list[tuple[int, ...]] = [tuple(rng.randrange(3, 256) for _ in range(40))]
    found = 0
    with open_tiny(models[0], reuse=False) as plain:
        for _ in range(4):
            with open_tiny(models[0], kv_disk_gb=1, parallel=2, kv_tokens=288) as engine:
                for _ in range(12):
                    text = rng.choice(texts)[: rng.randint(1, 200)] + tuple(rng.choices(range(3, 256), k=3))
                    got = answered(engine, text)
                    found += got.stats.cached_tokens
                    assert got.token_ids == answered(plain, text).token_ids
                    texts.append(text + got.token_ids)
                assert engine.load().used == 0
            for path in rng.sample(files(kv_dir()), 3):
                path.unlink()
    assert found > 1000


def test_the_native_door(models: tuple[Path, Path]) -> None:
    with open_tiny(models[0]) as engine:
        program = engine.runner.inner.program  # type: ignore[attr-defined]
        size = program.kv_block_bytes
        assert size * program.kv_blocks[0] == program.kv_bytes
        values = np.arange(size, dtype=np.uint8)
        program.write_kv(0, values)
        out = np.zeros(size, np.uint8)
        program.read_kv(0, out)
        assert (out == values).all()
        for block in (program.kv_blocks[0], 1 << 40):
            with pytest.raises(ValueError, match="block"):
                program.read_kv(block, out)
            with pytest.raises(ValueError, match="block"):
                program.write_kv(block, values)
        for wrong in (size - 1, size + 1, 0):
            with pytest.raises(ValueError, match="bytes"):
                program.write_kv(0, np.zeros(wrong, np.uint8))
    assert NAME_BYTES == 16
