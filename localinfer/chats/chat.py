"""A conversation with one model: messages → tokens → request → what the engine says."""

import re
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from localinfer.chats.template import _MARKS_OF_THE_MODEL, Message, Rendered, render
from localinfer.config import Overflow, SamplingParams
from localinfer.errors import ContextOverflow, LocalInferError, UsageError
from localinfer.events import Event, Finished, Shifted, Started, Text

if TYPE_CHECKING:
    from localinfer.engine.grammar import Constraint, Grammar
    from localinfer.engine.protocol import Engine
    from localinfer.engine.request import Request

CHARS_PER_TOKEN = 256
"""No vocabulary has longer tokens in use; text beyond context x this is refused before it is tokenized."""

SPLIT_TOKENS = 8
"""Tokens at most that a text may have been cut behind: those of an unfinished character, or held back for a stop."""


class Chat:
    """Keeps the messages, and asks `engine` for the next one. One reply at a time.

    `raw` sends prompts as plain text, without template, system prompt or history; with `special` what spells a control
    token in them is that token, and a begin-of-text token is not written twice. With `on_overflow="shift"` the
    oldest turns are forgotten when the context is full, never the system prompt, and a `Shifted` event says so.
    `variables` are what else the template may read, such as `enable_thinking`. Answers keep the form of `grammar`;
    with `logprobs` each token is scored, and so many of the likeliest beside it.
    """

    def __init__(
        self,
        engine: "Engine",
        *,
        system: str | None = None,
        messages: Sequence[Message] = (),
        sampling: SamplingParams | None = None,
        raw: bool = False,
        special: bool = False,
        on_overflow: Overflow = "error",
        variables: Mapping[str, Any] | None = None,
        grammar: "Grammar | None" = None,
        logprobs: int | None = None,
    ) -> None:
        if isinstance(messages, str):
            raise UsageError("`messages` is text, but must be messages", hint='write `[Message("user", "…")]`')
        if raw and system:
            raise UsageError("a system prompt needs the chat template", hint="leave out `--system` or `--raw`")
        self.engine = engine
        self.sampling = sampling or engine.default_sampling
        self.raw = raw
        self.special = special
        self.on_overflow = on_overflow
        self.grammar = grammar
        self.logprobs = logprobs
        self.variables = variables
        self.warnings: tuple[str, ...] = ()
        """What the last reply's user should know, such as a doubled begin-of-text token."""
        self._system = [Message("system", system)] if system else []
        self._turns = [message for message in messages if message.role != "system"]
        self._system = self._system or [message for message in messages if message.role == "system"][:1]
        self._forgotten = 0  # turns from the start that no longer fit the context
        self._retries = 0

    @property
    def messages(self) -> tuple[Message, ...]:
        """The whole conversation, the system prompt first if there is one."""
        return (*self._system, *self._turns)

    def reply(self, prompt: str, *, cancelled: Callable[[], bool] = lambda: False) -> Generator[Event, None, None]:
        """Answer `prompt`. `cancelled` is asked after every event.

        The prompt and the answer join `messages` when the reply ends, in whatever way: cancelled or cut off, what
        was written stays. If nothing was written, nothing is kept. Raises `ContextOverflow` if it does not fit.
        """
        if not isinstance(prompt, str):
            raise UsageError(f"`reply` takes text, not a {type(prompt).__name__}", hint="earlier turns are `messages`")
        self._retries = 0
        yield from self._answer([*self._turns, Message("user", prompt)], cancelled)

    def regenerate(
        self, *, attempt: int | None = None, cancelled: Callable[[], bool] = lambda: False
    ) -> Generator[Event, None, None]:
        """Answer the last prompt once more, with another seed. The old answer goes when the new one has text.

        `attempt` says by how much the seed differs; one more than the last time if it is None.
        """
        turns = list(self._turns)
        if turns and turns[-1].role == "assistant":
            turns.pop()
        if not turns:
            raise UsageError("there is no answer to write anew", hint="send a prompt first")
        self._retries = self._retries + 1 if attempt is None else attempt
        yield from self._answer(turns, cancelled)

    def go_on(
        self, *, tokens: Sequence[int] = (), attempt: int = 0, cancelled: Callable[[], bool] = lambda: False
    ) -> Generator[Event, None, None]:
        """Go on with the last answer, which was cut off; only what is new is said, and joins it.

        `tokens` are those it was made of, if they are known: with them, and the `attempt` it was made with, the whole
        answer is the one that was cut off. Without them its text is encoded.
        """
        if not self._turns or self._turns[-1].role != "assistant":
            raise UsageError("there is no answer to go on with", hint="send a prompt first")
        *turns, begun = self._turns
        self._retries = attempt
        yield from self._answer(turns, cancelled, begun.content, tokens)

    def prompt_text(self, prompt: str) -> str:
        """The exact text that the model would read for `prompt`."""
        return prompt if self.raw else self._render([*self._turns, Message("user", prompt)]).plain

    def tokens_of(self, prompt: str) -> list[int]:
        """The tokens that the model would read for `prompt`."""
        return self._tokens([*self._turns, Message("user", prompt)])

    def tokens_of_turns(self, turns: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """The tokens that the model would read for a whole conversation, behind the system prompt if there is one; a
        last turn of the assistant's is gone on with. Raises as `render` does."""
        if self.raw:
            return self._raw_tokens(turns[-1].content)
        template = self._template(tools)
        if template and "tool_calls" not in template and any("tool_calls" in turn.extra for turn in turns):
            raise UsageError(
                "this model's chat template knows no calls of tools, and the conversation has some",
                hint="leave them out, or choose another model",
            )
        rendered = self._render(turns, tools, continue_final=turns[-1].role == "assistant")
        self.warnings = rendered.warnings
        return self.engine.tokenizer.encode_rendered(rendered.text, rendered.guard)

    def marks(self, turns: Sequence[Message], tokens: list[int], keep: int = 0) -> tuple[int, ...]:
        """How many of the `tokens` of `turns` other conversations are likely to begin with, too: the system prompt
        (`keep`, if that is known), and all but what asks for an answer. Only models with recurrent layers need to
        know."""
        if not self.engine.info.state_bytes or self.raw or turns[-1].role == "assistant":
            return ()
        turns = list(turns)
        try:
            later = self._tokens([*turns[self._forgotten :], Message("assistant", "x"), Message("user", "x")])
            return keep or self._prefix_tokens(turns, tokens), shared(tokens, later)
        except LocalInferError:  # some templates refuse turns that follow so
            return ()

    def requests(self, prompt: str, count: int) -> "list[Request]":
        """What `count` answers to `prompt` are asked by; their seeds follow one another. Nothing joins `messages`.
        Raises as `reply` does."""
        turns = [*self._turns, Message("user", prompt)]
        tokens, _ = self._fit(turns)
        keep = self._prefix_tokens(turns, tokens) if self.on_overflow == "shift" else 0
        marks, constraint = self.marks(turns, tokens, keep), self.constraint(turns, tokens)
        return [self._request(tokens, keep, marks, constraint, 0, attempt) for attempt in range(count)]

    def _request(
        self,
        tokens: list[int],
        keep: int,
        marks: tuple[int, ...],
        constraint: "Constraint | None",
        begun: int,
        attempt: int,
    ) -> "Request":
        from localinfer.engine.request import Request

        return Request(
            tuple(tokens),
            replace(self.sampling, seed=(self.sampling.seed + attempt) % (1 << 64)),
            self.on_overflow,
            keep=keep,
            marks=marks,
            begun=begun,
            constraint=constraint,
            logprobs=self.logprobs,
        )

    def constraint(
        self, turns: Sequence[Message], tokens: Sequence[int], budget: int | None = None, *, begun: int = 0
    ) -> "Constraint | None":
        """The form of the answer to `turns`, which are `tokens`, with at most `budget` tokens of reasoning; the last
        `begun` tokens are those of an answer that is gone on with. Raises `UsageError` for one that cannot be kept."""
        from localinfer.chats.forms import constraint_of

        if turns[-1].role == "assistant" and not begun:
            if self.grammar is None:
                return None
            raise UsageError("an answer that was begun cannot be given a form", hint="ask anew, or leave the form out")
        split = len(tokens) - begun
        found = constraint_of(self.grammar, self.engine, tokens[:split], raw=self.raw, budget=budget)
        if found is not None and begun:
            found.require_kept(tokens[split:])
        return found

    def _answer(
        self, turns: list[Message], cancelled: Callable[[], bool], begun: str = "", begun_tokens: Sequence[int] = ()
    ) -> Generator[Event, None, None]:
        """Answer `turns`, or go on with an answer of which `begun` is there."""
        tokens, dropped = self._fit(turns, begun, begun_tokens)
        keep = self._prefix_tokens(turns, tokens) if self.on_overflow == "shift" else 0
        marks = self.marks(turns, tokens, keep)
        written: list[str] = []
        known = 0 if self.raw else len(self._known(begun, begun_tokens))
        said = [*turns, Message("assistant", begun)] if begun else turns
        constraint = self.constraint(said, tokens, begun=known)
        stream = self._stream(tokens, keep, marks, constraint, cancelled, known)
        try:
            for event in stream:
                if isinstance(event, Text):
                    written.append(event.text)
                yield event
                if isinstance(event, Started) and dropped:
                    yield Shifted(event.handle, dropped, len(tokens))
        finally:
            stream.close()
            if text := "".join(written):
                self._turns = [*turns, Message("assistant", begun + text)]

    def _stream(
        self,
        tokens: list[int],
        keep: int,
        marks: tuple[int, ...],
        constraint: "Constraint | None",
        cancelled: Callable[[], bool],
        begun: int,
    ) -> Generator[Event, None, None]:
        """The engine's events; asks it to stop once `cancelled()`, or when nobody listens any more."""
        request = self._request(tokens, keep, marks, constraint, begun, self._retries)
        running: int | None = None  # the handle, as long as there is something to cancel
        try:
            for event in self.engine.stream(request):
                running = None if isinstance(event, Finished) else event.handle
                yield event
                if running is not None and cancelled():
                    self.engine.cancel(running)
        finally:
            if running is not None:
                self.engine.cancel(running)

    def _fit(self, turns: list[Message], begun: str = "", begun_tokens: Sequence[int] = ()) -> tuple[list[int], int]:
        """The prompt's tokens, and how many were left out because the oldest turns are forgotten from now on.

        Forgets down to half the context at once, so that the cached prefix holds for several turns after.
        """

        def read(start: int) -> list[int]:
            return self._tokens(turns[start:], begun, begun_tokens)

        tokens = read(self._forgotten)
        size = self.engine.context_size
        later = [i for i, turn in enumerate(turns) if turn.role == "user" and i > self._forgotten]
        if self.on_overflow == "error" or len(tokens) + self._reply_room() <= size or not later:
            return tokens, 0
        first = bisect_left(later, True, key=lambda start: len(read(start)) <= size // 2)
        self._forgotten = later[min(first, len(later) - 1)]
        known = read(self._forgotten)
        return known, len(tokens) - len(known)

    def _reply_room(self) -> int:
        """Tokens to leave free for the answer before it starts."""
        quarter = self.engine.context_size // 4
        return min(self.sampling.max_tokens or quarter, quarter)

    def _tokens(self, turns: list[Message], begun: str = "", begun_tokens: Sequence[int] = ()) -> list[int]:
        size = self.engine.context_size
        if (length := len(turns[-1].content)) > CHARS_PER_TOKEN * size:
            raise ContextOverflow(
                f"the prompt has {length} characters, too many for {size} tokens of context",
                hint="send less, or raise `--ctx-size`",
            )
        tokenizer = self.engine.tokenizer
        if self.raw:
            return self._raw_tokens(turns[-1].content + begun)
        rendered = self._render(turns)
        self.warnings = rendered.warnings
        if known := self._known(begun, begun_tokens):
            return [*tokenizer.encode_rendered(rendered.text, rendered.guard), *known]
        text = broken(begun, tokenizer.special_strings, rendered.guard)
        return tokenizer.encode_rendered(rendered.text + text, rendered.guard)

    def _known(self, begun: str, tokens: Sequence[int]) -> list[int]:
        """As many of `tokens` as say exactly `begun`; none if they say something else."""
        if not begun or any(not 0 <= token < self.engine.tokenizer.vocab_size for token in tokens):
            return []
        for end in range(len(tokens), max(0, len(tokens) - SPLIT_TOKENS), -1):
            stream = self.engine.tokenizer.stream(continues=True)
            said = "".join([stream.push(token) for token in tokens[:end]]) + stream.finish()
            if said == begun:
                return list(tokens[:end])
        return []

    def _template(self, tools: Sequence[Mapping[str, Any]]) -> str | None:
        return (self.engine.tools_template if tools else None) or self.engine.chat_template

    def _render(
        self, turns: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), *, continue_final: bool = False
    ) -> Rendered:
        tokenizer = self.engine.tokenizer
        return render(
            self._template(tools),
            [*self._system, *turns],
            bos=tokenizer.bos_token or "",
            eos=tokenizer.eos_token or "",
            special_strings=tokenizer.special_strings,
            continue_final=continue_final,
            tools=tools or None,
            special_tokens=tokenizer.special_tokens,
            variables=self.variables,
        )

    def _raw_tokens(self, text: str) -> list[int]:
        """`text` as it is, behind the model's begin-of-text token if it wants one."""
        bos = self._bos()
        if not self.special:
            return [*bos, *self.engine.tokenizer.encode_text(text)]
        tokens = self.engine.tokenizer.encode_rendered(text)
        return tokens if tokens[: len(bos)] == bos else [*bos, *tokens]

    def _bos(self) -> list[int]:
        tokenizer = self.engine.tokenizer
        return [tokenizer.bos_id] if tokenizer.adds_bos and tokenizer.bos_id is not None else []

    def _prefix_tokens(self, turns: list[Message], tokens: list[int]) -> int:
        """How many tokens stand before the first turn's own text: the system prompt and the turn's header."""
        if self.raw:
            return len(self._bos())
        first = turns[self._forgotten]
        other = Message(first.role, "y" if first.content.lstrip().startswith("x") else "x")
        same = shared(tokens, self._tokens([other, *turns[self._forgotten + 1 :]]))
        return min(same, self.engine.context_size // 2)


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many leading tokens are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def broken(text: str, specials: Iterable[str], guard: str) -> str:
    """What the model wrote, for its own turn to go on: special strings in it are text, but for its marks."""
    barred = [re.escape(special) for special in specials if special and special not in _MARKS_OF_THE_MODEL]
    text = text.replace(guard, "\ufffd") if guard else text
    return re.sub(f"(?=(?:{'|'.join(barred)}))(?s:.)", rf"\g<0>{guard}", text) if barred else text
