"""The file with the chats: what it keeps, through kills, other processes, newer versions and damage."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from localinfer.chats.store import MIGRATIONS, ChatStore
from localinfer.chats.template import Message
from localinfer.errors import Corrupt, DoesNotFit, NotFound, NotSupported

USER = Message("user", "why is the sky blue?")
ANSWER = Message("assistant", "Rayleigh scattering.")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "chats.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[ChatStore]:
    with ChatStore(path) as store:
        yield store


def test_a_chat_is_kept(store: ChatStore, path: Path) -> None:
    chat = store.create("m:INT4", system="be kind")
    store.append(chat, USER)
    store.append(chat, ANSWER)
    with ChatStore(path) as again:
        saved, turns = again.get(chat)
    assert (saved.title, saved.model, saved.system) == ("why is the sky blue?", "m:INT4", "be kind")
    assert turns == (USER, ANSWER)


def test_text_is_kept_to_the_letter(store: ChatStore) -> None:
    chat = store.create("m")
    odd = Message("user", "\x1b[31m\x00 é 世界 \U0001f600 \u202e '; DROP TABLE chats; --\r\n")
    store.append(chat, odd)
    assert store.get(chat)[1] == (odd,)
    assert "\x1b" not in store.get(chat)[0].title


def test_list_shows_the_latest_first_and_no_empty_ones(path: Path) -> None:
    times = iter(range(100))
    with ChatStore(path, clock=lambda: float(next(times))) as store:
        first, second, empty = (store.create("m", title=title) for title in ("first", "second", ""))
        for chat in (first, second):
            store.append(chat, USER)
        assert [chat.title for chat in store.list()] == ["second", "first"]
        store.append(first, ANSWER)
        assert [chat.title for chat in store.list()] == ["first", "second"]
        assert [chat.id for chat in store.list(limit=1)] == [first]
        latest = store.latest()
        assert latest is not None
        assert (latest.id, latest.created, latest.updated) == (first, 0.0, 5.0)
        assert empty not in [chat.id for chat in store.list()]


def test_an_answer_written_anew_counts_once_it_has_text(store: ChatStore) -> None:
    chat = store.create("m")
    store.append(chat, USER)
    store.append(chat, ANSWER)
    row = store.replace(chat, Message("assistant", ""), finished=False)
    assert store.get(chat)[1] == (USER, ANSWER)
    store.update(row, "Better", finished=False)
    assert store.get(chat)[1] == (USER, Message("assistant", "Better"))
    store.discard(row)
    assert store.get(chat)[1] == (USER, ANSWER)


def test_a_prompt_without_answer_can_be_replaced(store: ChatStore) -> None:
    chat = store.create("m")
    store.append(chat, USER)
    store.append(chat, Message("assistant", ""), finished=False)  # killed before the first word
    store.replace(chat, Message("user", "another question"))
    store.append(chat, ANSWER)
    assert store.get(chat)[1] == (Message("user", "another question"), ANSWER)


def test_delete(store: ChatStore, path: Path) -> None:
    chat = store.create("m")
    store.append(chat, USER)
    store.delete(chat)
    assert store.list() == ()
    assert store.latest() is None
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM messages").fetchone() == (0,)
    db.close()
    for missing in (lambda: store.get(chat), lambda: store.delete(chat), lambda: store.append(chat, USER)):
        with pytest.raises(NotFound) as error:
            missing()
        assert error.value.hint


def test_only_the_owner_may_read(store: ChatStore, path: Path) -> None:
    store.append(store.create("m"), USER)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_two_processes_write_at_once(path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from localinfer.chats.store import ChatStore\n"
        "from localinfer.chats.template import Message\n"
        "store = ChatStore(Path(sys.argv[1])); chat = store.create('m')\n"
        "for i in range(50): store.append(chat, Message('user', f'{sys.argv[2]} {i}'))\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(path), name], env=os.environ | {"PYTHONPATH": "."})
        for name in "abc"
    ]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    with ChatStore(path) as store:
        chats = [[turn.content for turn in store.get(chat.id)[1]] for chat in store.list()]
    assert sorted(chats) == [[f"{name} {i}" for i in range(50)] for name in "abc"]


def test_threads_share_one_store(store: ChatStore) -> None:
    chat = store.create("m")
    threads = [threading.Thread(target=lambda: [store.append(chat, USER) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get(chat)[1] == (USER,) * 80


@pytest.mark.parametrize("kill_after", [1, 2, 3, 7, 20])
def test_a_kill_loses_nothing_that_was_saved(path: Path, kill_after: int) -> None:
    program = (
        "import sys; from pathlib import Path; from localinfer.chats.store import ChatStore\n"
        "from localinfer.chats.template import Message\n"
        "store = ChatStore(Path(sys.argv[1])); chat = store.create('m')\n"
        "row = store.append(chat, Message('user', '0'))\n"
        "for i in range(1, 10**6): store.update(row, str(i), finished=False); print(i, flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": "."}) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline() for _ in range(kill_after)][-1]
        writer.send_signal(signal.SIGKILL)
    with ChatStore(path) as store:
        assert int(store.get(1)[1][0].content) >= int(said)
        store.append(1, ANSWER)


def test_a_newer_file_is_refused_and_left_alone(path: Path) -> None:
    ChatStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(NotSupported, match="newer localinfer") as error:
        ChatStore(path)
    assert "update" in (error.value.hint or "")
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS) + 1,)
    db.close()


def read_and_write(path: Path, chat: int) -> None:
    with ChatStore(path) as store:
        store.get(chat)
        store.append(chat, ANSWER)


@pytest.mark.parametrize("damage", ["text", "zeros", "cut", "other"])
def test_a_damaged_file_is_named(path: Path, damage: str) -> None:
    with ChatStore(path) as store:
        chat = store.create("m")
        for _ in range(50):
            store.append(chat, Message("user", "x" * 1000))
    if damage == "other":
        path.unlink()
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE theirs (x)")
        db.close()
    else:
        whole = path.read_bytes()
        path.write_bytes({"text": b"not a database " * 400, "zeros": b"\0" * 8192, "cut": whole[:6000]}[damage])
    with pytest.raises(Corrupt) as error:
        read_and_write(path, chat)
    assert str(path) in (error.value.hint or "")


def test_one_damaged_chat_does_not_hide_the_others(path: Path) -> None:
    with ChatStore(path) as store:
        ids = [store.create("m", title=f"chat {i}") for i in range(3)]
        for chat in ids:
            for i in range(20):
                store.append(chat, Message("user", f"{chat} {i} " + "x" * 2000))
    data = bytearray(path.read_bytes())
    at = data.index(f"{ids[1]} 10 xxx".encode())
    data[at // 4096 * 4096 : at // 4096 * 4096 + 16] = b"\xff" * 16
    path.write_bytes(data)
    with ChatStore(path) as store:
        assert len(store.list()) == 3
        readable = 0
        for chat in ids:
            try:
                readable += len(store.get(chat)[1]) == 20
            except Corrupt:
                continue
        assert readable >= 1


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotFound, match="cannot keep chats") as error:
        ChatStore(tmp_path / "file" / "chats.sqlite3")
    assert error.value.hint


def test_a_locked_file_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localinfer.chats.store._BUSY_SECONDS", 0.05)
    with ChatStore(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(NotFound, match="in use"):
            store.create("m")
        other.execute("ROLLBACK")
        other.close()
        assert store.create("m") == 1


def test_a_full_disk_says_so(store: ChatStore) -> None:
    chat = store.create("m")
    store.append(chat, USER)
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DoesNotFit, match="full"):
        store.append(chat, Message("assistant", "x" * 100_000))
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.append(chat, ANSWER)
    assert store.get(chat)[1] == (USER, ANSWER)
