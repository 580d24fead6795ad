"""A `name` in a message is read by the chat template, or refused."""

import json
from pathlib import Path

import pytest

from localinfer.chats.mapping import Manner, begin_chat
from localinfer.chats.rows import Asked, Line, understood
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.opening import open_engine
from tests.tiny import make_checkpoint


def asked(*names: str | None) -> Asked:
    messages = [{"role": "user", "content": "hi"} | ({"name": name} if name else {}) for name in names]
    data = json.dumps({"messages": messages}).encode()
    return understood(Line.of(0, 1, data, ""), limit=1 << 16, sampling=SamplingParams())


@pytest.mark.parametrize("reads", [True, False])
def test_a_name_is_read_or_refused(tmp_path: Path, reads: bool) -> None:
    path = make_checkpoint(tmp_path / "tiny")
    config = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
    name = "{{ message['name'] }}: " if reads else ""
    config["chat_template"] = "{% for message in messages %}" + name + "{{ message['content'] }}\n{% endfor %}"
    (path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    with open_engine(path, EngineConfig(draft="off")) as engine:
        named, bare = (begin_chat(engine, asked(*names), Manner()) for names in (("bob", None), (None, None)))
    assert bare.error is None
    if reads:
        assert named.error is None
        assert named.prompt != bare.prompt
    else:
        assert "does not read the `name` of a message of role `user`" in str(named.error)


def test_unknown_keys_within_messages_are_refused() -> None:
    part = {"type": "text", "text": "x", "zz": 1}
    call = {"type": "function", "function": {"name": "f", "arguments": {}, "zz": 1}}
    for message in ({"role": "user", "content": [part]}, {"role": "assistant", "tool_calls": [call]}):
        line = Line.of(0, 1, json.dumps({"messages": [message, {"role": "user", "content": "x"}]}).encode(), "")
        strict = understood(line, limit=1 << 16, sampling=SamplingParams())
        assert "`zz` means nothing here" in str(strict.error)
        lax = understood(line, limit=1 << 16, sampling=SamplingParams(), ignore_unknown=True)
        assert lax.error is None
