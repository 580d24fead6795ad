"""What an engine is, whatever computes underneath: requests go in, events come out."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

from localinfer.config import SamplingParams
from localinfer.engine.driver import Driver
from localinfer.engine.request import Request as Request  # for those who know an engine by its protocol
from localinfer.events import Event

if TYPE_CHECKING:
    from localinfer.engine.load import Load
    from localinfer.engine.step_timing import StepTiming


class TextStream(Protocol):
    """Tokens to text, one at a time, whole characters only."""

    def push(self, token: int, /) -> str: ...
    def finish(self) -> str: ...


class Tokenizer(Protocol):
    """What engines and chats ask of a tokenizer; `formats.tokenizer.Tokenizer` says what each means."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def eos_ids(self) -> tuple[int, ...]: ...
    @property
    def bos_id(self) -> int | None: ...
    @property
    def adds_bos(self) -> bool: ...
    @property
    def after(self) -> tuple[int, ...]: ...
    @property
    def bos_token(self) -> str: ...
    @property
    def eos_token(self) -> str: ...
    @property
    def special_strings(self) -> tuple[str, ...]: ...
    @property
    def special_tokens(self) -> Mapping[str, str]: ...
    def encode_text(self, text: str) -> list[int]: ...
    def encode_rendered(self, text: str, guard: str = "") -> list[int]: ...
    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str: ...
    def stream(self, *, specials: bool = False, continues: bool = False) -> TextStream: ...
    def token_bytes(self, token: int, *, specials: bool = False) -> bytes: ...


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Where and how an engine runs; the line printed at start is made of this."""

    model: str
    backend: Literal["cpu", "cuda", "llamacpp", "ik_llamacpp"]
    isa: str
    """Kernel set: `scalar`, `avx2`, …; `sm_86`, … on a card; what llama.cpp says of itself for `llamacpp`."""
    threads: int
    kv_bits: int
    """As asked for."""
    bits: str
    """Bits of the weights, as in a variant's name: `BF16`, `INT8`, `INT5`, `INT4`, `INT3`, or the GGUF's own word."""
    weight_bytes: int
    kv_bytes: int
    """Keys and values, recurrent states and their snapshots included."""
    why: str
    """Why this kernel set; the card where it runs on one."""
    threads_why: str = "as asked"
    """Why so many threads."""
    kv_layers: tuple[int, ...] = ()
    """Bits of each layer's cache: with `kv_bits` 4, layers that do not bear it keep 8. Empty where it is not known."""
    state_bytes: int = 0
    """Of one sequence's recurrent state; 0 for a model that has none."""
    step_timing: "StepTiming | None" = None
    """Seconds of a step by its rows; None where they are not measured."""
    backend_why: str = ""
    """Why this backend was chosen, in words that go after `as`; empty where it was asked for."""
    card: str = ""
    """The uuid of the card."""
    card_bytes_per_s: float = 0.0
    """What the card's memory could give; 0 where its driver does not say."""
    in_file_bytes: int = 0
    """Of weights that take no memory: they stay in their file, and rows of them are read."""
    model_bytes: int = 0
    """Bytes of the model's files; 0 where only its weights are known."""
    notes: tuple[str, ...] = ()
    """What to tell of weights that run in another form than they are stored in."""


class Engine(Protocol):
    """Continues texts, several at once: `stream` for one, `driver` for many. `step` is for whoever has the engine to
    itself: `add` requests, and call it until it says `Finished`.

    All but `step` may be called from any thread, and only `close` waits for a step under way.
    """

    driver: Driver
    """Who calls `step` for all that ask."""
    info: EngineInfo
    tokenizer: Tokenizer
    chat_template: str | None
    tools_template: str | None
    """What stands in for `chat_template` where a conversation has tools; None where that is for both."""
    context_size: int
    default_sampling: SamplingParams
    """What the model's makers advise; our defaults where they say nothing."""

    def add(self, request: Request) -> int:
        """Queue a request and give its handle. Nothing is computed yet.

        Raises `UsageError` for an empty prompt or ids the model does not have, `ContextOverflow` for a prompt that
        leaves no place in the context (with `on_overflow="shift"` it is shortened, and `Shifted` says so).
        """
        ...

    def step(self) -> list[Event]:
        """Move every running request forward once and say what happened; empty when there is nothing to do. Raises
        `UsageError` while another thread steps the engine.

        `KeyboardInterrupt` may come out of it; the step then counts as not done, and any request can go on or be
        cancelled.
        """
        ...

    def stream(self, request: Request) -> Iterator[Event]:
        """The events of one request, from `Started` to `Finished`; see `Driver.stream`."""
        ...

    def cancel(self, handle: int) -> None:
        """End a request: its `Finished` event, reason `cancelled`, comes with the next `step`. Unknown or finished
        handles are ignored."""
        ...

    def focus(self, *handles: int) -> None:
        """The texts that somebody looks at: from now on they go first in what can be put off, and are the last
        to be preempted."""
        ...

    def load(self) -> "Load":
        """What the last step held, who waits, and how full the cache is."""
        ...

    def close(self) -> None:
        """Give the memory back. The engine cannot be used after this; closing twice is fine."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None, /
    ) -> None: ...
