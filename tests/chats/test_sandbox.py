"""No template gets out, none hangs, none fills the memory; and the next one works."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from localinfer.chats import sandbox
from localinfer.chats.lockdown import MEMORY_BYTES
from localinfer.chats.sandbox import OUTPUT_LIMIT, Sandbox
from localinfer.errors import Corrupt, LocalInferError, UsageError

from .attacks import ENDLESS, ESCAPES

DATA = {
    "messages": [{"role": "user", "content": "hi"}],
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "tools": None,
}
REVEALING = ("<class", "<function", "<module", "<built-in", "0x", "root:", "site-packages", "__globals__")


def outcome(template: str) -> str:
    """What the template wrote, or the message of its refusal."""
    try:
        return sandbox.render(template, DATA)
    except Corrupt as error:
        return error.message if error.hint and error.message.startswith("chat template refused: ") else "0x"


def test_the_corpus_is_large() -> None:
    assert len(ESCAPES) >= 40


@pytest.mark.parametrize("payload", ESCAPES)
def test_escape(payload: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    before = dict(os.environ)
    said = outcome(payload.replace("CANARY", str(canary)))
    assert not canary.exists()
    assert dict(os.environ) == before
    assert DATA["messages"] == [{"role": "user", "content": "hi"}]
    assert not any(word in said for word in REVEALING if word not in payload), said


@pytest.fixture(scope="module")
def hasty() -> Iterator[Sandbox]:
    box = Sandbox(seconds=0.3)
    yield box
    box.close()


@pytest.mark.parametrize("payload", ENDLESS, ids=lambda payload: payload[:60])
def test_endless(payload: str, hasty: Sandbox) -> None:
    try:
        said = hasty.render(payload, DATA)
    except Corrupt as refused:
        said = refused.message
    assert len(said) <= OUTPUT_LIMIT  # some are cheap after all
    assert hasty.render("{{ bos_token }}", DATA) == "<s>"


def test_an_endless_loop_is_ended_by_the_child_itself(hasty: Sandbox) -> None:
    """Also where the process that asked is gone, and cannot end it."""
    hasty.start()
    child = hasty._child
    assert child is not None
    assert child.stdin is not None
    request = {"template": ENDLESS[0], "data": {}, "limit": 10, "seconds": 0.2}
    child.stdin.write(json.dumps(request) + "\n")
    child.stdin.flush()
    assert child.wait(timeout=60) == -signal.SIGPROF


def test_a_template_that_is_too_slow_is_killed() -> None:
    with Sandbox(seconds=0.05) as box, pytest.raises(Corrupt, match=r"over 0\.05 s"):
        box.render(ENDLESS[0], DATA)


def test_output_may_not_exceed_its_limit() -> None:
    assert len(sandbox.render("{{ 'a' * 100 }}", DATA, limit=100)) == 100
    with pytest.raises(Corrupt, match="wrote over 100 characters"):
        sandbox.render("{{ 'a' * 101 }}", DATA, limit=100)


def test_a_template_may_refuse_a_conversation() -> None:
    with pytest.raises(UsageError, match="roles must alternate") as refused:
        sandbox.render("{{ raise_exception('roles must alternate\x1b[2J') }}", DATA)
    assert "\x1b" not in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize(
    "template",
    [
        "{% set ns = namespace(_a=1) %}",
        "{% set ns = namespace({'__a': 1}) %}",
        "{% set ns = namespace() %}{% set ns._a = 1 %}",
    ],
)
def test_a_namespace_takes_no_hidden_names(template: str) -> None:
    with pytest.raises(Corrupt, match="underscore"):
        sandbox.render(template, DATA)


def test_dict_and_namespace_make_what_they_make_in_transformers() -> None:
    told = "{{ dict(a=1) }}{{ dict.fromkeys('ab', 0) }}{{ dict.copy }}"
    told += "{% set ns = namespace({'a': 1}, self=2) %}{{ ns.a + ns.self }}"
    assert sandbox.render(told, DATA) == "{'a': 1}{'a': 0, 'b': 0}3"


def test_errors_name_the_line() -> None:
    with pytest.raises(Corrupt, match="line 3"):
        sandbox.render("a\nb\n{{ nothing.at.all }}", DATA)


def test_the_child_sees_none_of_our_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    box = Sandbox()
    assert box.render("x", DATA) == "x"
    assert box._child is not None
    environ = Path(f"/proc/{box._child.pid}/environ")
    if environ.exists():
        assert b"hf_secret" not in environ.read_bytes()
    box.close()


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="the limits of another process are Linux's to tell")
def test_the_child_may_not_fill_the_memory() -> None:
    box = Sandbox()
    box.render("{{ 1 }}", DATA)
    assert box._child is not None
    limits = Path(f"/proc/{box._child.pid}/limits").read_text(encoding="ascii")
    box.close()
    (space,) = [line.split() for line in limits.splitlines() if line.startswith("Max address space")]
    assert space[3:5] == [str(MEMORY_BYTES)] * 2


def test_a_child_that_died_is_replaced() -> None:
    box = Sandbox()
    assert box.render("{{ 1 }}", DATA) == "1"
    assert box._child is not None
    box._child.kill()
    box._child.wait()
    assert box.render("{{ 2 }}", DATA) == "2"
    box.close()


def test_an_interrupt_does_not_mix_up_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Sandbox()
    assert box.render("{{ 1 }}", DATA) == "1"

    def interrupted(*_args: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(box, "_exchange", interrupted)
        with pytest.raises(KeyboardInterrupt):
            box.render("{{ 2 }}", DATA)
    assert box.render("{{ 3 }}", DATA) == "3"
    box.close()


def test_a_process_that_was_prepared_is_the_next_one_used() -> None:
    sandbox.close()
    sandbox.prepare()
    (box,) = sandbox._spare
    sandbox.prepare()
    assert sandbox.render("{{ bos_token }}", DATA) == "<s>"
    assert sandbox._shared["{{ bos_token }}"] is box
    assert not sandbox._spare
    sandbox.prepare()
    sandbox.close()  # while it starts
    assert sandbox.render("{{ bos_token }}", DATA) == "<s>"


def test_many_threads_get_their_own_answers() -> None:
    wrong: list[str] = []

    def ask(name: str) -> None:
        for i in range(20):
            try:
                said = sandbox.render("{{ name }}", {"name": f"{name}{i}"})
            except LocalInferError as error:
                said = error.message
            if said != f"{name}{i}":
                wrong.append(said)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
