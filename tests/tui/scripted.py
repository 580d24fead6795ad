"""An engine that says what it is told, for screens that must look the same every time."""

import codecs
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Self

from localinfer.config import SamplingParams
from localinfer.engine.driver import Driver
from localinfer.engine.load import Load
from localinfer.engine.protocol import EngineInfo, Request, TextStream, Tokenizer
from localinfer.errors import LocalInferError
from localinfer.events import Event, Finished, FinishReason, Progress, Started, Stats, Text

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


class Bytes:
    """One token a byte: what the protocol asks of a tokenizer."""

    vocab_size = 256
    eos_ids: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    bos_id: int | None = None
    bos_token = ""
    eos_token = ""
    adds_bos = False
    special_strings: tuple[str, ...] = ()
    special_tokens: Mapping[str, str] = MappingProxyType({})

    def encode_text(self, text: str) -> list[int]:
        return list(text.encode())

    def encode_rendered(self, text: str, guard: str = "") -> list[int]:
        return list((text.replace(guard, "") if guard else text).encode())

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        return bytes(ids).decode(errors="replace")

    def stream(self, *, specials: bool = False, continues: bool = False) -> TextStream:
        return ByteStream()

    def token_bytes(self, token: int, *, specials: bool = False) -> bytes:
        return bytes([token])


class ByteStream:
    """Bytes to text."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int, /) -> str:
        return self._decoder.decode(bytes([token]))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class ScriptedEngine:
    """Answers each request with the next script; the pieces of a script are said one by one.

    `before_piece(index)` is called before each piece, and with -1 in the middle of the prefill; a test may block there.
    An error in the script is raised.
    """

    def __init__(self, *scripts: Sequence[str | LocalInferError], context: int = 512) -> None:
        self.info = EngineInfo("tiny", "cpu", "avx2", 2, 8, "INT4", 1 << 20, 1 << 20, "the best one here")
        self.tokenizer: Tokenizer = Bytes()
        self.chat_template: str | None = TEMPLATE
        self.tools_template: str | None = None
        self.context_size = context
        self.default_sampling = SamplingParams()
        self.requests: list[Request] = []
        self.closed = False
        self.focused: tuple[int, ...] = ()
        self.reason: FinishReason = "stop"
        self.before_piece: Callable[[int], None] = lambda _index: None
        self.driver = Driver(self)
        self._scripts = list(scripts)
        self.cancelled = threading.Event()

    def stream(self, request: Request) -> Iterator[Event]:
        self.requests.append(request)
        self.cancelled.clear()
        script = self._scripts.pop(0) if self._scripts else ()
        prompt = len(request.prompt)
        if script and isinstance(script[0], LocalInferError):
            raise script[0]
        yield Started(1, prompt, self.context_size)
        yield Progress(1, prompt // 2, prompt, prompt // 2)
        self.before_piece(-1)
        if not self.cancelled.is_set():
            yield Progress(1, prompt, prompt, prompt - prompt // 2)
        said = 0
        for index, piece in enumerate(script):
            self.before_piece(index)
            if self.cancelled.is_set():
                break
            if isinstance(piece, LocalInferError):
                raise piece
            said += 1
            yield Text(1, piece, (index,))
            yield self._stats(prompt, said)
        reason: FinishReason = "cancelled" if self.cancelled.is_set() else self.reason
        yield Finished(1, reason, tuple(range(said)), self._stats(prompt, said))

    def _stats(self, prompt: int, said: int) -> Stats:
        return Stats(
            handle=1,
            phase="decode",
            prompt_tokens=prompt,
            cached_tokens=0,
            completion_tokens=said,
            context_used=prompt + said,
            context_size=self.context_size,
            ttft_s=0.21,
            prefill_tok_s=812.0,
            decode_tok_s=41.5,
            recent_tok_s=42.0,
        )

    def cancel(self, handle: int) -> None:
        self.cancelled.set()

    def add(self, request: Request) -> int:
        raise AssertionError("the app streams")

    def step(self) -> list[Event]:
        raise AssertionError("the app streams")

    def focus(self, *handles: int) -> None:
        self.focused = handles

    def load(self) -> Load:
        return Load(decode_rows=1, step_s=0.02, running=1, blocks=16, used=2, kept=1)

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None, /
    ) -> None:
        self.close()
