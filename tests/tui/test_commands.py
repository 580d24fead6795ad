"""Slash commands, the palette, the list of chats, the editor: what can be asked for besides answers."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.binding import Binding
from textual.command import CommandPalette

from localinfer.chats.store import ChatStore
from localinfer.tui.app import ChatApp
from localinfer.tui.editor import edited
from localinfer.tui.handlers import COMMANDS
from localinfer.tui.keys import BINDINGS, KEYS
from localinfer.tui.screens.chats import ChatsScreen
from localinfer.tui.screens.details import DetailsScreen
from localinfer.tui.screens.help import HelpScreen
from localinfer.tui.widgets.answer import Answer
from localinfer.tui.widgets.hints import Hints
from localinfer.tui.widgets.transcript import Prompt
from tests.tui.app_state import box, said, saved, toasts, turns
from tests.tui.conftest import say, screen_text, settle
from tests.tui.scripted import ScriptedEngine

Scripted = Callable[..., ChatApp]
SIZE = (120, 40)


def test_every_key_is_on_the_card_and_on_the_page() -> None:
    """Whoever reads either knows all of them."""
    listed = " ".join(keys for keys, _ in KEYS).split()
    for binding in (one for one in BINDINGS if isinstance(one, Binding)):
        way = re.sub(r"(?<=alt\+|ift\+)(left|right|up|down)$", "arrows", binding.key)
        name = {"escape": "Esc", "shift+tab": "Tab", "pageup": "PgUp", "pagedown": "PgDn"}.get(
            way, way.title().replace("Arrows", "arrows")
        )
        assert name in listed
    page = (Path(__file__).parents[2] / "docs/start/panes.md").read_text(encoding="utf-8")
    rows = re.search(r"\| key \| does \|\n\|---\|---\|\n((?:\|.*\n)+)", page)
    assert rows
    assert rows[1].splitlines() == [f"| {keys.replace('  ', ', ')} | {does} |" for keys, does in KEYS]


async def test_settings_and_the_system_prompt_reach_the_engine(scripted: Scripted, store_path: Path) -> None:
    engine = ScriptedEngine(["one"], ["two"])
    app = scripted(engine=engine)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "a")
        for line in ("/set temp 0.2", "/set max_tokens 7", "/set stop END", "/set seed 9", "/system be brief"):
            await say(pilot, line)
        await say(pilot, "b")
        sampling = engine.requests[1].sampling
        assert (sampling.temperature, sampling.max_tokens, sampling.stop, sampling.seed) == (0.2, 7, ("END",), 9)
        assert engine.tokenizer.decode(engine.requests[1].prompt).startswith("<system>be brief<user>a")
        await say(pilot, "/set")
        assert "temperature 0.2" in said(app)
        await say(pilot, "/set logit_bias 5=-100 7=2.5")
        await say(pilot, "/set")
        assert "logit_bias 5=-100 7=2.5, seed" in said(app)
        await say(pilot, "/set logit_bias none")
        await say(pilot, "/set")
        assert "logit_bias none, seed" in said(app)
        assert "stop 'END'" in said(app)
        await say(pilot, "/set stop")
        await say(pilot, "/set max_tokens none")
        await say(pilot, "/set")
        assert said(app).endswith("max_tokens none, stop none")
        await say(pilot, "/system")
        assert said(app) == "system prompt: be brief"
        await say(pilot, "/system none")
        assert app.pane.session.system is None
        assert app.query_one(Answer).source == "one"
    with ChatStore(store_path) as store:
        assert store.list()[0].system is None


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("/nothing", "there is no command /nothing"),
        ("/etc/passwd", "there is no command /etc/passwd"),
        ("/model ", "/model REF: REF is missing"),
        ("/stop now", "/stop takes nothing after it"),
        ("/set temp hot", "temperature is `hot`, but must be a number"),
        ("/set temp 1e9", "temp is 1000000000.0, but must lie between"),
        ("/set heat 1", "there is no setting `heat`"),
        ("/set seed 1.5", "seed is `1.5`, but must be a whole number"),
        ("/set logit_bias 5", "logit-bias is '5', but must be TOKEN=BIAS"),
        ("/set logit-bias 5=1 6=900", "logit-bias is 900.0, but must lie between"),
        ("/save my chat", "nothing was said yet"),
        ("/attach /no/such/file", "no such file"),
        ("/split up", "`up` is not a side"),
        ("/theme ugly", "there is no theme `ugly`"),
    ],
)
async def test_what_goes_wrong_is_told(scripted: Scripted, line: str, what: str) -> None:
    app = scripted()
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, line)
        assert what in said(app)
        assert turns(app) == []


async def test_the_form_of_answers_is_set_shown_and_taken_away(scripted: Scripted, tmp_path: Path) -> None:
    (tmp_path / "word.lark").write_text('start: "a" | "b"\n', encoding="utf-8")
    app = scripted()
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "/form")
        assert said(app) == "answers have no form"
        for line, title in (
            ('/form schema {"type": "string"}', "schema"),
            ("/form regex [0-9]+", "expression"),
            (f"/form grammar {tmp_path / 'word.lark'}", "grammar"),
            ("/form json-object", "JSON object"),
        ):
            await say(pilot, line)
            assert said(app) == f"from the next answer on: {title}"
            assert f"form: {title}" in screen_text(app)
            assert app.pane.session.form is app.pane.session.chat.grammar  # type: ignore[union-attr]
        await say(pilot, "/form")
        assert said(app) == 'answers keep the JSON object {"type": "object"}'
        for line, told in (
            ("/form schema nowhere.json", "`nowhere.json` is no JSON schema, and as the name of a file"),
            ("/form regex (a", "this expression cannot be kept"),
            ("/form shape round", "there is no form `shape`"),
            ("/form regex", "the form `regex` needs a value"),
        ):
            await say(pilot, line)
            assert told in said(app)
            assert "form: JSON object" in screen_text(app)
        await say(pilot, "/form none")
        assert "form:" not in screen_text(app)
        assert app.pane.session.form is None


async def test_a_long_paste_may_be_an_argument(scripted: Scripted) -> None:
    from textual import events

    app = scripted()
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press(*"/system ")
        box(app).post_message(events.Paste("be kind\n" * 1000))
        await pilot.press("enter")
        await settle(pilot)
        assert app.pane.session.system == ("be kind\n" * 1000).strip()


async def test_two_slashes_send_one(scripted: Scripted) -> None:
    app = scripted(["ok"], ["ok"])
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "//etc is a folder?")
        assert turns(app)[0] == "/etc is a folder?"


async def test_completion(scripted: Scripted, tmp_path: Path) -> None:
    (tmp_path / "notes one.txt").write_text("x")
    app = scripted()
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press(*"/br")
        await pilot.pause()
        assert box(app).suggestion == "oadcast"
        assert app.query_one(Hints).display
        await pilot.press("tab")
        assert box(app).text == "/broadcast"
        box(app).load_text("")
        await pilot.pause()
        assert not app.query_one(Hints).display
        await pilot.press(*f"/attach {tmp_path}/no", "tab")
        assert box(app).text == f"/attach {tmp_path}/notes one.txt"
        box(app).load_text("")
        await pilot.press(*"/set temp", "tab", *"0.5", "enter")
        await settle(pilot)
        assert app.pane.session.sampling is not None
        assert app.pane.session.sampling.temperature == 0.5
        await pilot.press(*"/theme no", "tab", "enter")
        await settle(pilot)
        assert app.theme == "nord"


async def test_a_file_goes_with_the_next_prompt(scripted: Scripted, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("the text\x1b[31m of notes\n")
    (tmp_path / "bad").write_bytes(b"ab\xff")
    (tmp_path / "huge").write_bytes(b"x" * (512 * 256 + 1))
    engine = ScriptedEngine(["ok"])
    app = scripted(engine=engine)
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, f"/attach {tmp_path / 'bad'}")
        assert "not UTF-8" in said(app)
        await say(pilot, f"/attach {tmp_path / 'huge'}")
        assert "too much for a context of 512" in said(app)
        await say(pilot, f"/attach {tmp_path / 'notes.txt'}")
        assert "notes.txt" in screen_text(app)
        await say(pilot, "sum it up")
        assert turns(app)[0] == "the text\x1b[31m of notes\n\nsum it up"
        assert not app.pane.attached
        assert "+ notes.txt" not in screen_text(app)


async def test_export_and_save(scripted: Scripted, store_path: Path, tmp_path: Path) -> None:
    app = scripted(["hello"])
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "hi")
        await say(pilot, "/save Greetings")
        await say(pilot, f"/export {tmp_path}/chat.json")
        await say(pilot, f"/export {tmp_path}/chat.md")
        await say(pilot, f"/export {tmp_path}/chat.md")
        assert "is there already" in said(app)
    whole = json.loads((tmp_path / "chat.json").read_text())
    assert [turn["content"] for turn in whole["messages"]] == ["hi", "hello"]
    assert "## You\n\nhi\n" in (tmp_path / "chat.md").read_text()
    with ChatStore(store_path) as store:
        assert store.list()[0].title == "Greetings"


async def test_chats_are_found_opened_and_deleted(scripted: Scripted, store_path: Path) -> None:
    app = scripted(["about rivers"], ["about 100%_sure hills"], ["more"])
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await say(pilot, "rivers?")
        await say(pilot, "/clear")
        await say(pilot, "hills?")
        await pilot.press("ctrl+n", "f9")
        await settle(pilot)
        assert isinstance(app.screen, ChatsScreen)
        await pilot.press(*"100%_s")
        await pilot.pause()
        assert "hills?" in screen_text(app)
        assert "rivers?" not in screen_text(app)
        await pilot.press("enter")
        await settle(pilot)
        assert turns(app)[0] == "hills?"
        await say(pilot, "go on")
        assert turns(app)[-1] == "more"
        await say(pilot, "/chats rivers")
        await pilot.press("f5")
        await settle(pilot)
        assert [pane.session.turns[0].content for pane in app.chats.panes] == ["hills?", "rivers?"]
        await say(pilot, "/chats hills")
        await pilot.press("enter")
        await settle(pilot)
        assert len(app.chats.panes) == 2  # it is shown already: one goes there
        assert turns(app)[0] == "hills?"
        await say(pilot, "/chats rivers")
        await pilot.press("ctrl+d")
        assert len(saved(store_path)) == 2
        await pilot.press("ctrl+d", "escape")
    assert len(saved(store_path)) == 1


async def test_quotes_hold_many_lines(scripted: Scripted) -> None:
    app = scripted(["ok"])
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press(*'"""one', "enter", *"two", "enter", *'"""', "enter")
        await settle(pilot)
        assert turns(app)[0] == "one\ntwo"


async def test_a_paste_of_a_megabyte_is_sent_whole(scripted: Scripted) -> None:
    from textual import events

    text = "word and line\n" * 75_000
    app = scripted(engine=ScriptedEngine(["ok"], context=2_000_000))
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        box(app).post_message(events.Paste(text))
        await pilot.press("enter")
        await settle(pilot)
        assert turns(app)[0] == text
        assert "1050000 characters in all" in str(app.query_one(Prompt).content)


async def test_the_palette_runs_commands(scripted: Scripted) -> None:
    app = scripted()
    async with app.run_test(size=SIZE) as pilot:
        await settle(pilot)
        await pilot.press("ctrl+p")
        await pilot.pause(0.3)
        assert isinstance(app.screen, CommandPalette)
        await pilot.press(*"split")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await pilot.pause(0.3)
        await settle(pilot)
        assert len(app.chats.panes) == 2


async def test_the_editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "edit me"
    script.write_text('#!/bin/sh\nprintf "%s and more" "$(cat "$1")" > "$1"\n')
    script.chmod(0o755)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"'{script}'")
    assert edited("typed") == "typed and more"
    monkeypatch.setenv("EDITOR", "false")
    assert edited("typed") is None
    for wrong in (os.fspath(tmp_path / "none"), "'unclosed"):
        monkeypatch.setenv("EDITOR", wrong)
        with pytest.raises(Exception, match=r"editor|EDITOR"):
            edited("typed")


async def test_details_show_every_pane(scripted: Scripted) -> None:
    app = scripted(["one"], ["two"])
    async with app.run_test(size=(160, 40)) as pilot:
        await settle(pilot)
        await say(pilot, "a")
        await pilot.press("f5", "f3")
        await settle(pilot)
        assert isinstance(app.screen, DetailsScreen)
        shown = screen_text(app)
        assert "tokens/s in all" in shown
        assert "rows of a step" in shown
        assert "41.5" in shown
        await pilot.resize_terminal(80, 24)
        await settle(pilot)
        assert "SmolLM2-135M-I…:INT4" in screen_text(app)
        await pilot.press("escape")
    assert toasts(app) == []


async def test_every_command_has_a_place_in_the_help(scripted: Scripted) -> None:
    app = scripted()
    async with app.run_test(size=(120, 70)) as pilot:
        await settle(pilot)
        await say(pilot, "/help")
        assert isinstance(app.screen, HelpScreen)
        shown = screen_text(app)
        assert all(command.usage in shown for command in COMMANDS.values())
        await pilot.press("escape")
    assert toasts(app) == []
