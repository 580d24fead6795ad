"""The file with the chats: what it keeps, through kills, other processes, newer versions and damage."""

import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from localinfer.chats.schema import MIGRATIONS
from localinfer.chats.store import ChatStore
from localinfer.chats.template import Message
from localinfer.chats.turns import Figures, contents
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


def texts(store: ChatStore, chat: int) -> list[str]:
    return contents(store.get(chat)[1])


def test_a_chat_is_kept(store: ChatStore, path: Path) -> None:
    chat = store.create("m:INT4", system="be kind")
    store.append(chat, USER)
    store.append(chat, ANSWER)
    with ChatStore(path) as again:
        saved, turns = again.get(chat)
    assert (saved.title, saved.model, saved.system) == ("why is the sky blue?", "m:INT4", "be kind")
    assert tuple(turn.message for turn in turns) == (USER, ANSWER)


def test_text_is_kept_to_the_letter(store: ChatStore) -> None:
    chat = store.create("m")
    odd = Message("user", "\x1b[31m\x00 é 世界 \U0001f600 \u202e '; DROP TABLE chats; --\r\n")
    store.append(chat, odd)
    assert texts(store, chat) == [odd.content]
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
    asked = store.append(chat, USER)
    store.append(chat, ANSWER)
    _, row = store.begin(chat, None, parent=asked)
    assert texts(store, chat) == [USER.content, ANSWER.content]
    store.update(row, "Better", ending="writing")
    assert texts(store, chat) == [USER.content, "Better"]
    store.discard(row)
    assert texts(store, chat) == [USER.content]


def test_a_prompt_without_answer_can_be_replaced(store: ChatStore) -> None:
    chat = store.create("m")
    asked, _ = store.begin(chat, USER.content, parent=None)  # killed before the first word
    assert texts(store, chat) == [USER.content]
    store.begin(chat, "another question", parent=None, replaces=asked)
    store.append(chat, ANSWER)
    assert texts(store, chat) == ["another question", ANSWER.content]
    assert store.get(chat)[1][0].variants == 1


def test_an_edited_prompt_begins_a_branch(store: ChatStore) -> None:
    chat = store.create("m")
    for text in ("a", "b", "c", "d"):
        store.append(chat, Message("user" if text in "ac" else "assistant", text))
    first, old, *_ = store.get(chat)[1]
    _, row = store.begin(chat, "A", parent=None)
    assert texts(store, chat) == ["a", "b", "c", "d"]  # as long as nothing is written
    store.update(row, "B", ending="stop")
    assert texts(store, chat) == ["A", "B"]
    new = store.get(chat)[1][0]
    assert (new.variant, new.variants) == (2, 2)
    assert not store.page(chat, new.id or 0, 1)
    assert store.page(chat, new.id or 0, -1)
    assert texts(store, chat) == ["a", "b", "c", "d"]
    assert (store.get(chat)[1][0].variant, store.get(chat)[1][1].variants) == (1, 1)
    assert not store.page(chat, old.id or 0, 1)
    assert store.page(chat, first.id or 0, 1)
    assert texts(store, chat) == ["A", "B"]


def test_paging_comes_back_to_what_was_said_last(store: ChatStore) -> None:
    chat = store.create("m")
    asked = store.append(chat, USER)
    answer = store.append(chat, ANSWER)
    for text in ("go on", "more"):
        store.append(chat, Message("user" if text == "go on" else "assistant", text))
    _, row = store.begin(chat, None, parent=asked)
    store.update(row, "Other", ending="stop")
    assert texts(store, chat) == [USER.content, "Other"]
    assert store.page(chat, row, -1)
    assert texts(store, chat) == [USER.content, ANSWER.content, "go on", "more"]
    assert store.page(chat, answer, 1)


def test_how_an_answer_ended_is_kept_while_it_is_written(store: ChatStore) -> None:
    chat = store.create("m")
    _, row = store.begin(chat, "a", parent=None, model="m:INT4", system="be kind")
    store.update(row, "one two", ending="writing", tokens=[7, 70_000])
    turn = store.get(chat)[1][-1]
    assert (turn.ending, turn.tokens, turn.model, turn.system) == ("writing", (7, 70_000), "m:INT4", "be kind")
    assert "program ended" in turn.cut_off
    figures = Figures(10, 2, 1.5, 0.2, 1.0)
    store.update(row, "one two.", ending="stop", figures=figures)
    turn = store.get(chat)[1][-1]
    assert (turn.cut_off, turn.tokens, turn.figures) == ("", (), figures)


def test_a_fork_has_the_branch_that_is_shown(store: ChatStore) -> None:
    chat = store.create("m", system="two")
    asked, row = store.begin(chat, "a", parent=None, model="m", system="one")
    store.update(row, "b", ending="length", tokens=[1])
    _, other = store.begin(chat, None, parent=asked, model="n", system="two")
    store.update(other, "B", ending="stop", figures=Figures(1, 2, 3.0))
    copy = store.fork(chat)
    mine, theirs = store.get(copy)[1], store.get(chat)[1]
    assert [(turn.content, turn.system, turn.model, turn.figures) for turn in mine] == [
        (turn.content, turn.system, turn.model, turn.figures) for turn in theirs
    ]
    assert [turn.variants for turn in mine] == [1, 1]
    store.delete(chat)
    assert texts(store, copy) == ["a", "B"]


def test_prompts_come_latest_first(store: ChatStore) -> None:
    for name in "ab":
        chat = store.create("m")
        store.append(chat, Message("user", name))
        store.append(chat, ANSWER)
    assert store.prompts(10) == ("b", "a")
    assert store.prompts(1) == ("b",)


@pytest.mark.parametrize("figures", ["", "{", "[1]", '{"total_s": "much"}', '{"new": 1}', "null"])
def test_figures_of_another_kind_are_none_or_nothing(figures: str) -> None:
    assert Figures.from_json(figures) in (None, Figures())


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
    writers = [subprocess.Popen([sys.executable, "-c", program, str(path), name]) for name in "abc"]
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
    assert texts(store, chat) == [USER.content] * 80


@pytest.mark.parametrize("kill_after", [1, 2, 3, 7, 20])
def test_a_kill_loses_nothing_that_was_saved(path: Path, kill_after: int) -> None:
    program = (
        "import sys; from pathlib import Path; from localinfer.chats.store import ChatStore\n"
        "from localinfer.chats.template import Message\n"
        "store = ChatStore(Path(sys.argv[1])); chat = store.create('m')\n"
        "row = store.append(chat, Message('user', '0'))\n"
        "for i in range(1, 10**6): store.update(row, str(i), ending='writing'); print(i, flush=True)\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
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
    monkeypatch.setattr("localinfer.chats.database._BUSY_SECONDS", 0.05)
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
    assert texts(store, chat) == [USER.content, ANSWER.content]
