"""Two who have one chat open: one writes, the other reads until the first lets go."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localinfer.chats.store import ChatStore
from localinfer.errors import UsageError
from tests.chats.test_session import never, session, texts


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChatStore]:
    with ChatStore(tmp_path / "chats.sqlite3") as store:
        yield store


def test_one_session_writes_and_others_read(store: ChatStore) -> None:
    first = session(store, ["b"], ["d"])
    list(first.reply("a", cancelled=never))
    second = session(store, ["D"], resume=True)
    assert (second.held_by, second.claim()) == (os.getpid(), "taken")
    assert texts(second) == ["a", "b"]
    with pytest.raises(UsageError, match="open in another process"):
        second.reply("x", cancelled=never)
    with pytest.raises(UsageError, match="open in another process"):
        second.regenerate(cancelled=never)
    list(first.reply("c", cancelled=never))
    copy = second.fork()
    assert copy.held_by is None
    first.close()
    assert second.claim() == "changed"
    assert texts(second) == ["a", "b", "c", "d"]
    assert second.claim() == "ours"
    list(second.reply("e", cancelled=never))
    assert texts(second) == ["a", "b", "c", "d", "e", "D"]


def test_an_answer_of_another_process_is_followed(store: ChatStore) -> None:
    writer = session(store, ["b"])
    list(writer.reply("a", cancelled=never))
    asked, row = store.begin(1, "c", parent=writer.turns[-1].id)
    reader = session(store, ["D"], resume=True)
    assert (texts(reader), reader.unsent) == (["a", "b"], "")  # it is being answered, not left unanswered
    store.update(row, "one ", ending="writing", tokens=[1])
    assert reader.follow()
    assert not reader.follow()
    assert (texts(reader), reader.turns[-1].elsewhere, reader.cut_off) == (["a", "b", "c", "one "], True, "")
    copy = reader.fork().turns[-1]
    assert (copy.ending, copy.elsewhere, copy.content) == ("copied", False, "one ")
    writer.close()
    assert reader.follow()
    assert (reader.free, reader.turns[-1].elsewhere) == (True, False)
    assert "program ended" in reader.cut_off  # nobody writes it any more
    assert reader.fork().turns[-1].ending == "writing"
    store.update(row, "one two", ending="stop")
    assert reader.claim() == "changed"
    list(reader.reply("d", cancelled=never))
    assert texts(reader) == ["a", "b", "c", "one two", "d", "D"]
    assert asked in [turn.id for turn in reader.turns]


def test_a_process_that_is_killed_lets_go(store: ChatStore) -> None:
    list(session(store, ["b"]).reply("a", cancelled=never))
    program = (
        "import sys, time; from pathlib import Path; from localinfer.chats.session import ChatSession\n"
        "from localinfer.chats.store import ChatStore\n"
        "chat = ChatSession(ChatStore(Path(sys.argv[1])), model='m', resume=True); print('here', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(store.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "here\n"
        chat = session(store, ["d"], resume=True)
        assert chat.held_by == other.pid
        assert chat.claim() == "taken"
        other.kill()
        other.wait()
    assert chat.claim() == "ours"


def test_where_nobody_can_tell_the_chat_is_ours(store: ChatStore) -> None:
    list(session(store, ["b"]).reply("a", cancelled=never))
    folder = store.path.with_name(store.path.name + ".open")
    shutil.rmtree(folder)
    folder.write_text("in the way")
    chat = session(store, ["d"], resume=True)
    list(chat.reply("c", cancelled=never))
    assert texts(chat) == ["a", "b", "c", "d"]
