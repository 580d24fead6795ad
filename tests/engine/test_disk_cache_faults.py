"""KV blocks on disk where it hurts: files that are not what they are called, a bound that others share, interrupts."""

import os
import random
import shutil
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from localinfer.engine.protocol import Request
from localinfer.events import Finished
from localinfer.kv.cache import PagedCache
from localinfer.paths import kv_dir
from tests.engine.running import GREEDY, finish, open_tiny, run_one, said
from tests.engine.test_disk_cache import SIZE, Memory, answered, disk_cache, filled
from tests.tiny import make_checkpoint

TEXT = list(range(32 * 8))
FILE = SIZE + 96
"""At least the bytes of one file."""


def path_of(folder: Path, name: bytes) -> Path:
    return next(folder.glob("*")) / name.hex()[:2] / name.hex()


def found(folder: Path, names: Sequence[bytes]) -> list[bool]:
    """Which come back, in a process of its own."""
    one = disk_cache(folder, Memory())
    back = [one.fetch(name, 0) for name in names]
    one.close()
    return back


def test_a_block_under_the_name_of_another_is_refused(tmp_path: Path) -> None:
    """Whole, but of another text: its keys and values would be wrong in silence."""
    _, names = filled(tmp_path / "kv", 2)
    path_of(tmp_path / "kv", names[0]).write_bytes(path_of(tmp_path / "kv", names[1]).read_bytes())
    assert found(tmp_path / "kv", names) == [False, True]
    assert not path_of(tmp_path / "kv", names[0]).exists()


def test_a_block_of_another_model_is_refused(tmp_path: Path) -> None:
    _, names = filled(tmp_path / "kv", 1)
    other = disk_cache(tmp_path / "kv", Memory(), identity="n")
    mine = path_of(tmp_path / "kv", names[0])
    theirs = other.names(TEXT, 1)[0]
    place = tmp_path / "kv" / other._root.hex() / theirs.hex()[:2] / theirs.hex()
    place.parent.mkdir(parents=True)
    place.write_bytes(mine.read_bytes())
    assert not other.fetch(theirs, 0)
    other.close()


@pytest.mark.parametrize("kind", ["fifo", "socket", "link", "folder"])
def test_what_is_no_file_is_removed_and_stops_nothing(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, names = filled(tmp_path / "kv", 2)
    path = path_of(tmp_path / "kv", names[0])
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(path.parent)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as here:
            here.bind(path.name)
    elif kind == "link":
        path.symlink_to(path_of(tmp_path / "kv", names[1]))
    else:
        path.mkdir()
    answers: list[list[bool]] = []
    reader = threading.Thread(target=lambda: answers.append(found(tmp_path / "kv", names)), daemon=True)
    before = len(list(Path("/proc/self/fd").iterdir()))
    reader.start()
    reader.join(5)
    assert answers == [[False, True]], "it hangs" if not answers else ""
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert not os.path.lexists(path)
    one = disk_cache(tmp_path / "kv", memory)
    one.keep(names[0], 0)
    one.close()
    assert not one.problem
    assert found(tmp_path / "kv", names) == [True, True]


def test_after_a_broken_block_the_others_are_looked_at_when_they_are_kept_anew(tmp_path: Path) -> None:
    memory, names = filled(tmp_path / "kv", 4)
    for name in names[:3]:
        path = path_of(tmp_path / "kv", name)
        path.write_bytes(path.read_bytes()[:-1])
    before = path_of(tmp_path / "kv", names[3]).stat().st_ino
    one = disk_cache(tmp_path / "kv", memory)
    assert not one.fetch(names[0], 0)
    for block, name in enumerate(names):
        one.keep(name, block)
    one.close()
    assert path_of(tmp_path / "kv", names[3]).stat().st_ino == before  # what is whole stays
    assert found(tmp_path / "kv", names) == [True] * 4


def test_the_end_of_a_text_goes_before_its_beginning(tmp_path: Path) -> None:
    """Without its beginning, nothing of a text is ever found again."""
    one = disk_cache(tmp_path / "kv", Memory(), limit=5 * FILE)
    cache = PagedCache(slots=1, context=256, blocks=8)
    cache.groups[0].disk = one
    lease = cache.open(TEXT)
    cache.reserve(lease, 256)
    for end in range(96, 257, 32):  # a prompt, then an answer
        cache.publish(lease, TEXT, end)
    cache.close(lease)
    one.close()
    names = one.names(TEXT, 8)
    back = found(tmp_path / "kv", names)
    kept = sum(back)
    assert 3 <= kept <= 5
    assert back == [True] * kept + [False] * (8 - kept)


def test_a_beginning_that_is_used_outlives_what_is_not(tmp_path: Path) -> None:
    """A chat that is found in memory turn after turn is used, too."""
    one = disk_cache(tmp_path / "kv", Memory())
    cache = PagedCache(slots=1, context=256, blocks=8)
    cache.groups[0].disk = one
    first, other = TEXT[:64], [9] * 64
    for text in (first, other, [*first, *range(40)]):
        lease = cache.open(text)
        cache.reserve(lease, len(text))
        cache.publish(lease, text, len(text))
        cache.close(lease)
        time.sleep(0.05)
    one.close()
    stamp = {name: path_of(tmp_path / "kv", name).stat().st_mtime_ns for name in one.names(first, 2)}
    for name in one.names(other, 2):
        assert all(path_of(tmp_path / "kv", name).stat().st_mtime_ns < used for used in stamp.values())


def test_the_bound_holds_for_two_that_write(tmp_path: Path) -> None:
    memory = Memory()
    limit = 20 * FILE
    both = [disk_cache(tmp_path / "kv", memory, limit=limit) for _ in range(2)]
    for round_ in range(20):
        for i, one in enumerate(both):
            one.keep(one.names([i * 100 + round_] * 32, 1)[0], 0)
    for one in both:
        one.close()
    total = sum(path.stat().st_size for path in (tmp_path / "kv").rglob("*") if path.is_file())
    assert total <= limit * 1.25


def test_the_count_follows_what_is_deleted(tmp_path: Path) -> None:
    memory, _ = filled(tmp_path / "kv", 2)
    one = disk_cache(tmp_path / "kv", memory, limit=3 * FILE)
    for i in range(10):
        one.keep(one.names([i + 50] * 32, 1)[0], 0)
    one.close()
    assert one.count == sum(path.is_file() for path in (tmp_path / "kv").rglob("*"))


def test_an_interrupt_while_blocks_are_read_loses_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path / "kv", 8)
    cache = PagedCache(slots=1, context=288, blocks=9)
    one = disk_cache(tmp_path / "kv", Memory())
    cache.groups[0].disk = one

    def interrupted(name: bytes, block: int) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(one, "fetch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache.open([*TEXT, 1])
    assert cache.available == 9
    lease = cache.open([*TEXT, 1])
    assert lease.cached == 256
    one.close()


@pytest.mark.parametrize("length", [60, 63, 64, 65, 95, 96, 97])
def test_at_most_31_tokens_are_read_anew(tmp_path: Path, length: int) -> None:
    """For every length of the text, also one that fills its last block but for the token that is never computed."""
    path = make_checkpoint(tmp_path / "m", seed=1)
    prompt = [(7 * i) % 250 for i in range(length - GREEDY.max_tokens)]  # type: ignore[operator]
    with open_tiny(path, kv_disk_gb=1) as engine:
        text = [*prompt, *run_one(engine, prompt).token_ids]
    assert len(text) == length
    with open_tiny(path, reuse=False) as plain:
        want = run_one(plain, text).token_ids
    with open_tiny(path, kv_disk_gb=1) as engine:
        got = answered(engine, tuple(text))
        assert got.token_ids == want
        assert got.stats.prompt_tokens - got.stats.cached_tokens <= 31
        assert engine.load().used == 0


def test_a_whole_last_block_is_used_up_to_its_last_token(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", seed=1)
    prompt = [(7 * i) % 250 for i in range(128)]
    for _ in range(2):
        with open_tiny(path, kv_disk_gb=1) as engine:
            got = answered(engine, tuple(prompt))
            assert engine.load().used == 0
    assert got.stats.prompt_tokens - got.stats.cached_tokens <= 31
    assert kv_dir().is_dir()


def test_the_load_says_what_lies_there(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", seed=1)
    for _ in range(2):
        with open_tiny(path, kv_disk_gb=1) as engine:
            run_one(engine, [(7 * i) % 250 for i in range(100)])
        load = engine.load()
    files = [file for file in kv_dir().rglob("*") if file.is_file()]
    assert load.on_disk == len(files) > 0
    assert load.disk_bytes == sum(file.stat().st_size for file in files)


def test_a_folder_that_is_emptied_meanwhile_does_not_end_keeping(tmp_path: Path) -> None:
    memory, names = filled(tmp_path / "kv", 2)
    one = disk_cache(tmp_path / "kv", memory)
    shutil.rmtree(tmp_path / "kv")
    assert not one.fetch(names[0], 0)
    one.keep(names[0], 0)
    one.close()
    assert not one.problem
    assert found(tmp_path / "kv", names) == [True, False]


def test_a_folder_that_is_emptied_while_it_is_counted_does_not_end_keeping(tmp_path: Path) -> None:
    memory, _names = filled(tmp_path / "kv", 8)
    shutil.copytree(tmp_path / "kv", tmp_path / "copy")
    for _ in range(100):
        one = disk_cache(tmp_path / "kv", memory)
        shutil.rmtree(tmp_path / "kv")
        one.close()
        assert not one.problem
        shutil.copytree(tmp_path / "copy", tmp_path / "kv", dirs_exist_ok=True)


@pytest.mark.parametrize("config", [{"kv_bits": 16}, {"kv_bits": 4, "draft": "early"}, {"draft": "suffix"}], ids=str)
def test_random_chats_over_restarts(tmp_path: Path, config: dict[str, Any]) -> None:
    """Turns, forks and shifted contexts, a cache that is too small, a bound that is too low: the same tokens."""
    path = make_checkpoint(tmp_path / "m", seed=1, head_dim=32)
    rng = random.Random(5)
    texts: list[tuple[int, ...]] = [tuple(rng.randrange(256) for _ in range(90))]
    cached = 0
    with open_tiny(path, reuse=False, kv_bits=config.get("kv_bits", 8)) as plain:
        for restart in range(5):
            limit = 1 if restart < 3 else 2e-4
            with open_tiny(path, kv_disk_gb=limit, parallel=2, kv_tokens=288, **config) as engine:
                for _ in range(6):
                    asks = [rng.choice(texts)[: rng.randint(1, 240)] for _ in range(2)]
                    requests = [
                        Request((*ask, rng.randrange(256)), GREEDY, on_overflow="shift", keep=8) for ask in asks
                    ]
                    handles = [engine.add(request) for request in requests]
                    events = finish(engine)
                    for handle, request in zip(handles, requests, strict=True):
                        got = said(events, handle)
                        want = next(e for e in plain.stream(request) if isinstance(e, Finished))
                        assert got.token_ids == want.token_ids
                        cached += got.finished.stats.cached_tokens
                        texts.append((*request.prompt, *got.token_ids))
                assert engine.load().used == 0
                assert not engine.load().disk_problem
    assert cached > 1000
