"""What a model says when nobody asks: texts drawn from its own distribution, to calibrate on where there is no data.

Every other text goes on from one word drawn at random (LLM-QAT, Liu et al., 2023). The others, where there is a chat
template, are conversations whose question the model writes too, since the template's beginning asks for one (Magpie, Xu
et al., 2024). Nothing narrows the draw: temperature 1, every token possible.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from localinfer.chats.template import Message, Rendered, render
from localinfer.config import SamplingParams
from localinfer.engine.protocol import Engine, Request
from localinfer.errors import LocalInferError, UsageError
from localinfer.events import tokens_of
from localinfer.formats.durable import write_failed

TOGETHER = 8
"""Texts that are drawn side by side."""

CONTEXT = 1024
"""Tokens of context that this takes, if the model has as many."""

LONGEST, LONGEST_QUESTION, LONGEST_ANSWER = 511, 160, 320
_MARK = "QUESTION"

Line = str | list[dict[str, str]]
"""A text, or a conversation."""


def write_self_calibration(
    engine: Engine,
    path: Path,
    *,
    tokens: int,
    seed: int,
    together: int = TOGETHER,
    temperature: float = 1.0,
    late: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Append to `path`, a JSON line each, until there are `tokens` tokens of text, or it is `late`; gives how many.
    Texts that are being drawn when it gets late end where they are.

    A text depends on the model, `seed`, `temperature` and its number alone, so what a stopped run has left is gone on
    with. `engine` runs `together` sequences. Raises `UsageError` for a model that says too little, `DoesNotFit` for a
    full disk.
    """
    lines = _complete_lines(path, together)
    done = sum(_length(engine, line) for line in lines)
    begin = _begin_of_question(engine)
    most = 64 + tokens // 8
    while done < tokens and not late():
        if len(lines) >= most:
            raise UsageError(
                f"the model's own words are too few: {done} tokens in {most} texts, and {tokens} are needed",
                hint="calibrate on a text of your own: `--calib FILE`",
            )
        fresh = _drawn(engine, range(len(lines), len(lines) + together), seed, begin, temperature, late)
        try:
            with path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line) + "\n" for line in fresh)
        except OSError as error:
            raise write_failed(path, 1 << 16, error) from error
        lines += fresh
        done += sum(_length(engine, line) for line in fresh)
        if on_progress is not None:
            on_progress(min(done, tokens), tokens)
    return done


def _complete_lines(path: Path, together: int) -> list[Line]:
    """What is there, in whole rounds; a kill may have torn the last one, which is cut off."""
    data = path.read_bytes() if path.exists() else b""
    lines = data.split(b"\n")[:-1]
    lines = lines[: len(lines) // together * together]
    if path.exists():
        with path.open("r+b") as file:
            file.truncate(sum(len(line) + 1 for line in lines))
    return [json.loads(line) for line in lines]


def _length(engine: Engine, line: Line) -> int:
    text = line if isinstance(line, str) else "".join(turn["content"] for turn in line)
    return len(engine.tokenizer.encode_text(text))


def _drawn(
    engine: Engine,
    numbers: Sequence[int],
    seed: int,
    begin: tuple[int, ...],
    temperature: float,
    late: Callable[[], bool],
) -> list[Line]:
    """The texts of these numbers, odd ones conversations. Empty ones keep their place, so that numbers stay."""
    rngs = {number: random.Random(f"{seed} {number}") for number in numbers}
    asks = [number for number in numbers if begin and number % 2]
    first = {number: _word(engine, rngs[number]) for number in numbers if number not in asks}
    bos = (engine.tokenizer.bos_id,) if engine.tokenizer.adds_bos and engine.tokenizer.bos_id is not None else ()
    prompts = [((*bos, first[n]) if n in first else begin, rngs[n].getrandbits(63)) for n in numbers]
    limits = [LONGEST if n in first else LONGEST_QUESTION for n in numbers]
    said = dict(zip(numbers, _continued(engine, prompts, limits, temperature, late), strict=True))
    lines: dict[int, Line] = {n: engine.tokenizer.decode([first[n], *said[n]]) for n in first}
    questions = {number: engine.tokenizer.decode(said[number]).strip() for number in asks}
    turns = [(_answer_to(engine, questions[number]), rngs[number].getrandbits(63)) for number in asks]
    answers = _continued(engine, turns, [LONGEST_ANSWER] * len(asks), temperature, late)
    for number, ids in zip(asks, answers, strict=True):
        answer = engine.tokenizer.decode(ids).strip()
        lines[number] = [
            {"role": "user", "content": questions[number]},
            {"role": "assistant", "content": answer},
        ]
    return [lines[number] for number in numbers]


def _continued(
    engine: Engine,
    prompts: Sequence[tuple[tuple[int, ...], int]],
    limits: Sequence[int],
    temperature: float,
    late: Callable[[], bool],
) -> Iterator[list[int]]:
    """Each (prompt, seed) drawn on to its end, to its limit of tokens, or until it is `late`."""
    said: list[list[int]] = [[] for _ in prompts]
    rooms = [min(limit, engine.context_size - len(prompt)) for (prompt, _), limit in zip(prompts, limits, strict=True)]
    begun = [i for i, room in enumerate(rooms) if room > 0]
    usual = SamplingParams(temperature=temperature, top_k=0, top_p=1.0)
    requests = [Request(prompts[i][0], replace(usual, seed=prompts[i][1], max_tokens=rooms[i])) for i in begun]
    with closing(engine.driver.steps(requests)) as steps:
        for step in steps:
            for i, events in zip(begun, step, strict=True):
                said[i] += tokens_of(events)
            if late():
                break
    return iter(said)


def _word(engine: Engine, rng: random.Random) -> int:
    """A token of letters alone."""
    for _ in range(10000):
        token = rng.randrange(engine.tokenizer.vocab_size)
        if engine.tokenizer.decode([token]).strip().isalpha():
            return token
    raise UsageError("the model's vocabulary has no words", hint="calibrate on a text of your own: `--calib FILE`")


def _begin_of_question(engine: Engine) -> tuple[int, ...]:
    """The tokens before a person's first words; none if there is no template, or it does not tell."""
    try:
        rendered = _rendered(engine, _MARK, asks=False)
    except LocalInferError:
        return ()
    before, mark, _ = rendered.text.partition(_MARK)
    return tuple(engine.tokenizer.encode_rendered(before, rendered.guard)) if mark else ()


def _answer_to(engine: Engine, question: str) -> tuple[int, ...]:
    rendered = _rendered(engine, question, asks=True)
    return tuple(engine.tokenizer.encode_rendered(rendered.text, rendered.guard))


def _rendered(engine: Engine, question: str, *, asks: bool) -> Rendered:
    return render(
        engine.chat_template,
        [Message("user", question)],
        bos=engine.tokenizer.bos_token,
        eos=engine.tokenizer.eos_token,
        special_strings=engine.tokenizer.special_strings,
        special_tokens=engine.tokenizer.special_tokens,
        add_generation_prompt=asks,
    )
