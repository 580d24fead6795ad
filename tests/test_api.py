"""The package as a library: a model by its name, streams side by side, and its document's own examples."""

import asyncio
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import localinfer
from localinfer import Chat, EngineConfig, Request, SamplingParams, Text, astream, load
from localinfer.errors import DoesNotFit, NotFound, UsageError
from localinfer.hub import catalogue
from tests.tiny import make_checkpoint

GREEDY = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)
QUESTIONS = ["one", "two words", "three words here"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_checkpoint(tmp_path_factory.mktemp("api")))


def open_it(path: str, parallel: int = 3) -> localinfer.Engine:
    return load(path, EngineConfig(context=128, threads=1, parallel=parallel))


def answer(engine: localinfer.Engine, question: str) -> str:
    events = Chat(engine, sampling=GREEDY, raw=True).reply(question)
    return "".join(event.text for event in events if isinstance(event, Text))


async def answer_async(engine: localinfer.Engine, question: str) -> str:
    events = astream(Chat(engine, sampling=GREEDY, raw=True).reply(question))
    return "".join([event.text async for event in events if isinstance(event, Text)])


async def test_side_by_side_they_say_what_they_say_alone(path: str) -> None:
    with open_it(path) as engine:
        alone = [answer(engine, question) for question in QUESTIONS]
        together = await asyncio.gather(*(answer_async(engine, question) for question in QUESTIONS))
    assert together == alone
    assert len(set(alone)) == 3


async def test_a_cancelled_task_frees_its_place(path: str) -> None:
    with open_it(path, parallel=1) as engine:
        endless, begun = SamplingParams(temperature=0, max_tokens=100, ignore_eos=True), asyncio.Event()

        async def read() -> None:
            async for _ in astream(Chat(engine, sampling=endless, raw=True).reply("go on")):
                begun.set()

        task = asyncio.create_task(read())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.wait_for(answer_async(engine, "one"), 20)


async def test_leaving_early(path: str) -> None:
    with open_it(path, parallel=1) as engine:
        events = astream(Chat(engine, sampling=GREEDY, raw=True).reply("one"))
        async for event in events:
            if isinstance(event, Text):
                break
        await events.aclose()
        assert await answer_async(engine, "one") == answer(engine, "one")


async def test_errors_come_out_of_the_stream(path: str) -> None:
    with open_it(path) as engine, pytest.raises(localinfer.ContextOverflow):
        await answer_async(engine, "x" * 5000)


def test_a_model_that_is_not_here() -> None:
    with pytest.raises(NotFound) as missing:
        load("nobody/nothing")
    assert missing.value.hint


def test_every_name_is_there_and_documented() -> None:
    text = (Path(__file__).parents[1] / "docs" / "guides" / "python.md").read_text(encoding="utf-8")
    for name in localinfer.__all__:
        assert getattr(localinfer, name)
    assert set(re.findall(r"localinfer\.(\w+)", text)) <= set(localinfer.__all__)


def test_the_documents_examples_run(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[1] / "docs" / "guides" / "python.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        exec(compile(example.replace("starter:INT4", path), "docs/guides/python.md", "exec"), {})
        assert capsys.readouterr().out.strip()


def test_one_stop_is_one_and_not_its_letters(path: str) -> None:
    assert SamplingParams(stop="Paris").stop == ("Paris",)
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")
    assert hash(SamplingParams(stop=["a"])) == hash(SamplingParams(stop="a"))
    for wrong in (5, ["a", 5], {"a": 1}, None, ""):
        with pytest.raises(UsageError, match="stop"):
            SamplingParams(stop=wrong)
    with open_it(path) as engine:
        whole = answer(engine, "one")
        sampling = replace(GREEDY, stop=whole[4:7])
        events = Chat(engine, sampling=sampling, raw=True).reply("one")
        said = "".join(event.text for event in events if isinstance(event, Text))
    assert said == whole[: whole.index(whole[4:7])]


def test_text_where_a_request_is_wanted_says_what_is(path: str) -> None:
    with open_it(path) as engine:
        for call in (engine.add, lambda given: next(iter(engine.stream(given))), Request):
            with pytest.raises(UsageError, match="an engine takes a `Request` of token ids, not text") as error:
                call("text")
            assert "Chat(engine)" in str(error.value.hint)
        with pytest.raises(UsageError, match="not text"):
            Request(("a", "word"))
        with pytest.raises(UsageError, match="not a int"):
            engine.add(5)


def test_conversations_are_messages_and_prompts_are_text(path: str) -> None:
    with open_it(path) as engine:
        with pytest.raises(UsageError, match="messages"):
            Chat(engine, messages="hello")
        with pytest.raises(UsageError, match="`reply` takes text"):
            list(Chat(engine).reply(["hello"]))


def test_a_path_may_be_text(path: str) -> None:
    with localinfer.open_engine(path, EngineConfig(context=64, threads=1)) as engine:
        assert engine.info.model
    assert EngineConfig(draft="model", draft_model=path).draft_model == Path(path)


def test_it_can_be_run_as_a_module() -> None:
    ran = subprocess.run([sys.executable, "-m", "localinfer", "--version"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{localinfer.__version__}\n", "")
    wrong = subprocess.run([sys.executable, "-m", "localinfer", "rnu"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, "did you mean `localinfer run`?" in wrong.stderr) == (2, True)


def test_it_is_opened_as_commands_open_it(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue's advice holds here too, and what does not fit is told before it is loaded."""
    entry = catalogue.Entry("org/m", "tiny", (), "none", 1, sampling={"min_p": 0.3})
    monkeypatch.setattr(catalogue, "find", lambda _ref: entry)
    with open_it(path) as engine:
        assert engine.default_sampling.min_p == 0.3
    monkeypatch.setattr("localinfer.cost.fit.available_bytes", lambda: 1000)
    with pytest.raises(DoesNotFit):
        open_it(path)
