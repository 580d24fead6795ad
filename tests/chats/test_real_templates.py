"""Templates of published models, rendered here and by `transformers`: the same text, or both refuse."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from localinfer.chats import sandbox
from localinfer.chats.sandbox import Sandbox
from localinfer.chats.template import reads_parts, render
from localinfer.errors import LocalInferError
from localinfer.formats.channels import CHANNEL

FOLDER = Path(__file__).with_name("templates")
FILES = sorted(FOLDER.rglob("*.jinja"))
NEEDS_MORE = {"ollama-utils/firefunction-v2-70b"}
"""Reads variables that nobody gives, and refuses every conversation, there too."""
Turns = list[dict[str, Any]]

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'Weather of a "city" <today>, in °C & °F',
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where"},
                "unit": {"type": "string", "enum": ["c", "f"]},
                "days": {"type": "array", "items": {"type": "integer"}},
            },
            "required": ["city"],
        },
    },
}
CALL = {"id": "call_abc12", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich"}}}

CONVERSATIONS: dict[str, tuple[Turns, list[dict[str, Any]] | None]] = {
    "user": ([{"role": "user", "content": "What is 2+2?"}], None),
    "system": ([{"role": "system", "content": " Be kind.\n"}, {"role": "user", "content": "Hi\n"}], None),
    "turns": (
        [
            {"role": "user", "content": "é <b>'\" {{ x }} {% if %} \\n"},
            {"role": "assistant", "content": "世界 🎉\n\n\tok "},
            {"role": "user", "content": "  and\n\nthen? "},
            {"role": "assistant", "content": "<think>\nhm\n</think>\n\nThis."},
            {"role": "user", "content": "Why?"},
        ],
        None,
    ),
    "tools": ([{"role": "system", "content": "Use tools."}, {"role": "user", "content": "Weather?"}], [WEATHER]),
    "calls": (
        [
            {"role": "user", "content": "Weather in Zürich?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "name": "get_weather", "tool_call_id": "call_abc12", "content": '{"c": 21}'},
            {"role": "assistant", "content": "21 °C."},
            {"role": "user", "content": "Thanks"},
        ],
        [WEATHER],
    ),
    "reasoning": (
        [
            {"role": "user", "content": "1+1?"},
            {"role": "assistant", "reasoning_content": "Add → 2.", "content": "2"},
            {"role": "user", "content": "Sure?"},
        ],
        None,
    ),
    "result last": (
        [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": "", "reasoning_content": "Ask.", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_abc12", "name": "get_weather", "content": "21 °C"},
        ],
        [WEATHER],
    ),
    "parts": ([{"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "two"}]}], None),
}


@pytest.fixture(scope="module", autouse=True)
def one_process() -> Iterator[None]:
    """A process for all of them, since hundreds would take a while to start."""
    with pytest.MonkeyPatch.context() as patch:
        box = Sandbox(seconds=10)
        patch.setattr(sandbox, "render", box.render)
        yield
        box.close()


@pytest.fixture(scope="module")
def reference() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    library = Tokenizer(models.BPE({"a": 0}, []))
    backend: Any = PreTrainedTokenizerFast
    return backend(tokenizer_object=library, bos_token="<s>", eos_token="</s>")


def name_of(path: Path) -> str:
    return str(path.relative_to(FOLDER).with_suffix(""))


def theirs(reference: Any, template: str, turns: Turns, tools: Any, **more: Any) -> str | None:
    """What `transformers` makes of it; None if it refuses."""
    more = {"add_generation_prompt": True} | more
    try:
        text: str = reference.apply_chat_template(turns, tools, chat_template=template, tokenize=False, **more)
    except Exception:  # whatever the template runs into
        return None
    return text


def ours(template: str, turns: Turns, tools: Any, **more: Any) -> str | None:
    try:
        return render(template, turns, bos="<s>", eos="</s>", tools=tools, **more).plain
    except LocalInferError:
        return None


def specials_of(template: str) -> tuple[str, ...]:
    """What may be special tokens of the model, for all that its template tells."""
    found = re.findall(r"<[|｜][^<>'\"\s{}]+[|｜]>|\[/?[A-Z_]{3,}\]|</?[a-z_]{3,}>", template)
    return tuple(sorted({"<s>", "</s>", "<|im_end|>", *found}))


def test_there_are_enough() -> None:
    assert len(FILES) >= 200


def with_reasoning_apart(turn: dict[str, Any]) -> dict[str, Any]:
    """The turn as harmony has it."""
    marked = re.fullmatch(r"<think>\n(.*)\n</think>\n\n(.*)", str(turn.get("content")), re.DOTALL)
    return turn if marked is None else turn | {"thinking": marked[1], "content": marked[2]}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_as_transformers_renders_it(reference: Any, path: Path) -> None:
    template = path.read_bytes().decode()
    rendered = 0
    for name, (turns, tools) in CONVERSATIONS.items():
        if name == "parts" and not reads_parts(template):
            turns = [{"role": "user", "content": "One\ntwo"}]
        if CHANNEL in template:  # it knows no marks of reasoning, and has a field for it
            turns = [with_reasoning_apart(turn) for turn in turns]
        expected = theirs(reference, template, turns, tools)
        assert ours(template, CONVERSATIONS[name][0], tools) == expected, name
        rendered += expected is not None
        guarded = ours(template, CONVERSATIONS[name][0], tools, special_strings=specials_of(template))
        assert guarded == expected, name
    assert rendered or name_of(path) in NEEDS_MORE


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_words_become_a_special_token(path: Path) -> None:
    """Every place that takes text is given all special strings; the template's own tokens stay the same in number."""
    template = path.read_bytes().decode()
    specials = tuple(s for s in specials_of(template) if s not in ("<think>", "</think>"))
    found = re.compile("|".join(map(re.escape, sorted(specials, key=len, reverse=True))))

    def counted(word: str) -> list[str] | None:
        turns = [{"role": "user", "content": f"a {word} b"}]
        try:
            rendered = render(template, turns, bos="<s>", eos="</s>", special_strings=specials)
        except LocalInferError:
            return None
        return found.findall(rendered.text)

    plain = counted("word")
    assert counted(" ".join(specials)) == plain
    assert counted("".join(specials)) == plain


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_message_is_gone_on_with_as_in_transformers(reference: Any, path: Path) -> None:
    template = path.read_bytes().decode()
    for begun in ("The answer is", "The answer is ", "\n1. <b>é "):
        turns = [{"role": "user", "content": "1+1?"}, {"role": "assistant", "content": begun}]
        expected = theirs(reference, template, turns, None, add_generation_prompt=False, continue_final_message=True)
        assert ours(template, turns, None, continue_final=True) == expected, begun
        guarded = ours(template, turns, None, continue_final=True, special_strings=specials_of(template))
        assert guarded == expected, begun
