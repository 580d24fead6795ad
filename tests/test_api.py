"""The package as a library: a model by its name, streams side by side, and its document's own examples."""

import asyncio
import re
from pathlib import Path

import pytest

import localinfer
from localinfer import Chat, EngineConfig, SamplingParams, Text, astream, load
from localinfer.errors import NotFound
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
    text = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    for name in localinfer.__all__:
        assert getattr(localinfer, name)
    assert set(re.findall(r"localinfer\.(\w+)", text)) <= set(localinfer.__all__)


def test_the_documents_examples_run(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        exec(compile(example.replace("starter:INT4", path), "docs/python.md", "exec"), {})
        assert capsys.readouterr().out.strip()
