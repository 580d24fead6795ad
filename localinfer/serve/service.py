"""What all requests of a server share: its models, its queue, its counts and its log."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from time import perf_counter

from localinfer.engine.request import Request
from localinfer.errors import ContextOverflow, UsageError
from localinfer.events import Finished
from localinfer.loading.tell import Tell
from localinfer.protocols.answer import Answer
from localinfer.protocols.asking import Ask, tasks_of
from localinfer.protocols.errors import Busy, Closing
from localinfer.serve.metrics import Metrics
from localinfer.serve.models import Held, Models
from localinfer.serve.writing import Writing

LONGEST_WAIT_S = 60
"""Seconds at most that somebody is told to wait."""

ASK_AGAIN_S = 0.05
"""Seconds after which a pipe looks again for a place."""


class Service:
    """Answers what is asked, whatever protocol it came in. `queue` is how many texts of a model may wait beside the
    `parallel` that run."""

    def __init__(self, models: Models, *, parallel: int, queue: int, tell: Tell) -> None:
        self.models, self.metrics = models, Metrics()
        self._parallel, self._queue, self._tell = parallel, queue, tell
        self._text_s = 1.0  # what a text took of late, on average
        self.ends = asyncio.Event()
        """Set when the server is to end: whatever is being written ends, too."""
        self.left = asyncio.Event()
        """Set when nothing new is taken and all that was asked has been answered."""
        self.is_closing = False
        self.asked = 0
        """Requests so far."""
        self.texts = 0
        """Texts that run or wait, of all models."""

    @asynccontextmanager
    async def writing(self, ask: Ask) -> AsyncIterator[tuple[Held, Writing]]:
        """The texts for `ask`, submitted; what is not finished when this is left is cancelled.

        Raises `Busy` for a full queue, `NotFound`, `ContextOverflow`, and whatever is wrong with the request, before
        anything is computed.
        """
        async with self.models.use(ask.model, ask.keep_s) as held:
            with self._place(held, ask.n * max(1, len(ask.prompts))):
                tasks = await asyncio.to_thread(tasks_of, ask, held.engine)
                try:
                    writing = Writing(held.engine, tasks, one_call=ask.choice.one_call)
                except ContextOverflow as error:
                    raise ContextOverflow(
                        error.message, hint="send less, or serve with a larger `--ctx-size`"
                    ) from None
                begun = perf_counter()
                try:
                    yield held, writing
                finally:
                    writing.close()
                    self.count(held, writing.answers, perf_counter() - begun)

    async def vectors(self, held: Held, requests: Sequence[Request]) -> list[tuple[float, ...]]:
        """The vectors that `requests` ask for. They take turns with texts that are written, and only so many wait as
        run together. Raises `Busy` for a full queue, what the engine raises, and `Closing`."""
        with self._place(held, 1):
            gate = asyncio.Semaphore(self._parallel)
            found: dict[int, tuple[float, ...]] = {}

            async def one(index: int, request: Request) -> None:
                async with gate:
                    async for event in held.engine.driver.astream(request):
                        if self.ends.is_set():
                            raise Closing("the server ends")
                        if isinstance(event, Finished) and event.vector is not None:
                            found[index] = event.vector

            tasks = [asyncio.create_task(one(index, request)) for index, request in enumerate(requests)]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
            return [found[index] for index in range(len(requests))]

    @asynccontextmanager
    async def place(self, held: Held) -> AsyncIterator[None]:
        """A place for one text of this user's own pipes, which wait for it. Raises `Closing`."""
        with ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(self._place(held, 1))
                    break
                except Busy:
                    await asyncio.sleep(ASK_AGAIN_S)
            yield

    def close_door(self) -> None:
        """Take nothing new; `left` is set when the last text has ended."""
        self.is_closing = True
        self._say_if_left()

    def _say_if_left(self) -> None:
        if self.is_closing and not self.texts:
            self.left.set()

    def count(self, held: Held, answers: Iterable[Answer], seconds: float | None = None) -> None:
        """These have ended; of late a text took `seconds`, if that is known."""
        for answer in answers:
            self.metrics.count(held.served.name, answer)
            if answer.reason is not None and seconds is not None:
                self._text_s += 0.1 * (seconds - self._text_s)

    def note(self, text: str) -> None:
        """One line of log."""
        self._tell.note(text)

    @contextmanager
    def _place(self, held: Held, texts: int) -> Iterator[None]:
        """Room in the queue for so many texts. Raises `Busy`, and `Closing` where nothing new is taken."""
        if self.is_closing:
            raise Closing("the server ends")
        most = self._parallel + self._queue
        if texts > most:
            raise UsageError(
                f"{texts} texts at once are asked for, and {most} may run or wait here",
                hint="ask for fewer, or start the server with a larger `--queue`",
            )
        if held.texts + texts > most:
            seconds = round(self._text_s * max(1, held.texts / self._parallel))
            raise Busy(
                f"{held.texts} texts run or wait, and {texts} more would be over {most}",
                retry_after=min(max(1, seconds), LONGEST_WAIT_S),
            )
        held.texts += texts
        self.texts += texts
        self.asked += 1
        try:
            yield
        finally:
            held.texts -= texts
            self.texts -= texts
            self._say_if_left()


def in_words(answers: Iterable[Answer], default: str) -> str:
    """What a line of log says of the answers to one request; `default` is how those ended that have not."""
    return "; ".join(_in_words(answer, default) for answer in answers)


def _in_words(answer: Answer, default: str) -> str:
    stats, ended = answer.stats, answer.reason or default
    if answer.reason == "stop" and answer.calls:
        ended = f"{len(answer.calls)} call{'s' * (len(answer.calls) > 1)}"
    if stats is None:
        return f"{ended} before the first token"
    parts = [
        f"prompt {stats.prompt_tokens} ({stats.cached_tokens} cached)",
        f"first token {stats.ttft_s:.2f} s" if stats.ttft_s is not None else "no token",
        f"out {stats.completion_tokens}" + (f" at {stats.decode_tok_s:.1f}/s" if stats.decode_tok_s else ""),
        f"seed {answer.seed}",
        ended,
    ]
    return ", ".join(parts)
