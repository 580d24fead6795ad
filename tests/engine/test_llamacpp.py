"""The second engine on a real GGUF file: the one that the starter's package brings."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from localinfer import native
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.engine import StepEngine
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Request
from localinfer.errors import ContextOverflow, Corrupt, NotSupported, UsageError
from localinfer.events import Event, Shifted, Started
from localinfer.scheduler.sequence import Work
from tests.engine.running import Said, said

GREEDY = SamplingParams(temperature=0, max_tokens=24)
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def gguf(starter_gguf: Path) -> Path:
    return starter_gguf


def open_llamacpp(gguf: Path, **config: object) -> StepEngine:
    settings = EngineConfig(**({"context": 256, "threads": 1} | config))  # type: ignore[arg-type]
    engine = open_engine(gguf, settings, backend="llamacpp")
    assert isinstance(engine, StepEngine)
    return engine


@pytest.fixture(scope="module")
def engine(gguf: Path) -> Iterator[StepEngine]:
    with open_llamacpp(gguf, parallel=2, prefill_chunk=64) as engine:
        yield engine


def ask(engine: StepEngine, question: str) -> tuple[int, ...]:
    return tuple(engine.tokenizer.encode_rendered(CHAT.format(question)))


def run(engine: StepEngine, prompt: Sequence[int], sampling: SamplingParams = GREEDY) -> Said:
    events = list(engine.stream(Request(tuple(prompt), sampling)))
    return said(events, events[0].handle)


def finish(engine: StepEngine) -> list[Event]:
    events: list[Event] = []
    while step := engine.step():
        events += step
    return events


def test_it_answers_sensibly_and_stops_by_itself(engine: StepEngine) -> None:
    text = run(engine, ask(engine, "What is the capital of France?"), SamplingParams(temperature=0, max_tokens=100))
    assert "Paris" in text.text
    assert text.finished.reason == "stop"
    assert "<|im_end|>" not in text.text


def test_what_it_says_about_itself(engine: StepEngine, gguf: Path) -> None:
    info = engine.info
    assert (info.backend, info.threads, info.kv_bits, info.bits) == ("llamacpp", 1, 8, "Q4_1")
    assert info.model == gguf.name
    assert info.isa in ("avx512", "avx2", "avx", "neon", "scalar")
    assert 80e6 < info.weight_bytes < 110e6
    assert info.kv_bytes == 30 * 2 * 3 * 64 * 34 // 32 * 2 * 256
    assert engine.chat_template is not None
    assert "<|im_start|>" in engine.chat_template


def test_the_tokenizer_is_ours_in_all_but_its_inside(engine: StepEngine) -> None:
    t = engine.tokenizer
    assert t.vocab_size == 49152
    assert (t.bos_id, t.bos_token, t.eos_token, t.adds_bos) == (1, "<|im_start|>", "<|im_end|>", False)
    assert 2 in t.eos_ids
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} <= set(t.special_strings)
    for text in ("Hello, world!", "  two  spaces\n\n", "naïve 🙂 日本語", ""):
        assert t.decode(t.encode_text(text)) == text
    assert 2 not in t.encode_text("<|im_end|>")
    assert t.encode_rendered("a<|im_end|>") == [*t.encode_text("a"), 2]
    guarded = t.encode_rendered("a<\x01|im_end|>b<|im_end|>", "\x01")
    assert guarded.count(2) == 1
    assert t.decode(guarded, specials=True) == "a<|im_end|>b<|im_end|>"
    assert t.decode([2, 10**6, -1]) == ""
    with pytest.raises(UsageError, match="character 2"):
        t.encode_text("ab\ud800")


def test_characters_are_never_cut(engine: StepEngine) -> None:
    stream = engine.tokenizer.stream()
    pieces = [stream.push(token) for token in engine.tokenizer.encode_text("🙂 日本語")]
    assert "" in pieces
    assert "".join(pieces) + stream.finish() == "🙂 日本語"
    half = engine.tokenizer.stream()
    assert half.push(engine.tokenizer.encode_text("🙂")[0]) == ""
    assert half.finish() == "\ufffd"


def test_sampling_is_ours(engine: StepEngine) -> None:
    prompt = ask(engine, "Tell me a story.")
    sampling = SamplingParams(temperature=1.0, seed=3, max_tokens=20)
    run(engine, prompt, sampling)  # from here on the prompt is cached, and all runs are alike also to llama.cpp
    first = run(engine, prompt, sampling)
    assert run(engine, prompt, sampling).token_ids == first.token_ids
    assert run(engine, prompt, SamplingParams(temperature=1.0, seed=4, max_tokens=20)).token_ids != first.token_ids
    stopped = run(engine, prompt, SamplingParams(temperature=0, stop=("xyz", " a "), max_tokens=60))
    assert stopped.finished.stop == " a "
    assert " a " not in stopped.text


def test_the_beginning_is_not_read_twice(engine: StepEngine) -> None:
    prompt = ask(engine, "Name three colours of the rainbow, and say why you like each of them.")
    first = run(engine, prompt)
    again = run(engine, prompt)
    assert again.finished.stats.cached_tokens == len(prompt) - 1
    assert again.text
    longer = run(engine, [*prompt, *first.token_ids, *ask(engine, "And a fourth?")])
    assert longer.finished.stats.cached_tokens >= len(prompt)
    assert longer.text


def test_two_at_once(engine: StepEngine) -> None:
    prompts = [ask(engine, f"What is the capital of {country}?") for country in ("France", "Italy", "Spain")]
    handles = [engine.add(Request(prompt, GREEDY)) for prompt in prompts]
    events = finish(engine)
    texts = [said(events, handle).text for handle in handles]
    assert ["Paris" in texts[0], "Rome" in texts[1], "Madrid" in texts[2]] == [True] * 3


def test_overflow_and_shift(engine: StepEngine) -> None:
    with pytest.raises(ContextOverflow, match=r"300 tokens.* 256"):
        engine.add(Request((5,) * 300))
    prompt = ask(engine, "Count from one to a thousand in words." + " and so on" * 70)
    sampling = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    events = list(engine.stream(Request(prompt, sampling, on_overflow="shift", keep=4)))
    assert any(isinstance(event, Shifted) for event in events)
    assert len(said(events, events[0].handle).token_ids) == 60
    full = list(engine.stream(Request(prompt, SamplingParams(temperature=0, ignore_eos=True))))
    assert said(full, full[0].handle).finished.reason == "overflow"


def test_cancelled_and_interrupted_steps_leave_nothing_behind(
    engine: StepEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = ask(engine, "Why is the sky blue?")
    plain = run(engine, prompt)
    inner = engine.runner
    calls = iter(range(1000))

    class Interrupted:
        def forward(self, batch: Sequence[Work]) -> object:
            logits = inner.forward(batch)
            if next(calls) % 3 == 0:
                raise KeyboardInterrupt
            return logits

        def close(self) -> None: ...

    monkeypatch.setattr(engine, "runner", Interrupted())
    handle = engine.add(Request(prompt, GREEDY))
    other = engine.add(Request(prompt[:9]))
    events: list[Event] = []
    while not engine.idle:
        try:
            events += engine.step()
        except KeyboardInterrupt:
            engine.cancel(other)
    events += engine.step()
    assert said(events, handle).text == plain.text


def test_ctrl_c_is_seen_inside_a_long_step(gguf: Path) -> None:
    with open_llamacpp(gguf, context=4096, threads=1, prefill_chunk=4096) as engine, engine.driver.here():
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
        stream = engine.stream(Request(tuple(i % 1000 + 100 for i in range(4000)), GREEDY))
        assert isinstance(next(stream), Started)
        started = time.monotonic()
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            list(stream)
        assert engine.scheduler.idle
        assert time.monotonic() - started < 60
        text = run(engine, ask(engine, "What is the capital of France?"))
        assert "Paris" in text.text


def test_nothing_is_written_to_the_terminal(gguf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with open_llamacpp(gguf) as engine:
        run(engine, ask(engine, "Hi"))
    assert capfd.readouterr() == ("", "")


def test_files_that_lie(gguf: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = gguf.read_bytes()
    for name, content in {
        "empty": b"",
        "short": data[:1000],
        "cut": data[: len(data) // 2],
        "magic": b"XXXX" + data[4:100_000],
        "count": data[:8] + b"\xff" * 8 + data[16:100_000],
    }.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        with pytest.raises(Corrupt):
            open_llamacpp(path)
    assert capfd.readouterr() == ("", "")


def test_an_architecture_that_llamacpp_does_not_know(gguf: Path, tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    path.write_bytes(gguf.read_bytes().replace(b"llama", b"lambo"))
    with pytest.raises(NotSupported, match=r"cannot load odd\.gguf: .*lambo"):
        open_llamacpp(path)


def test_drafts_are_refused_not_dropped(gguf: Path) -> None:
    with pytest.raises(NotSupported, match="lookup"):
        open_llamacpp(gguf, draft="lookup")


def test_it_uses_all_cores_unless_told(gguf: Path) -> None:
    with open_llamacpp(gguf, threads=None) as engine:
        assert engine.info.threads == native.physical_cores()
