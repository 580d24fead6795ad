"""What is asked of an engine: one text to be continued."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from localinfer.config import MOST_TOP, Overflow, Pool, SamplingParams, in_range
from localinfer.errors import UsageError

if TYPE_CHECKING:
    from localinfer.engine.grammar import Constraint


@dataclass(frozen=True, slots=True)
class Request:
    """One text to be continued."""

    prompt: tuple[int, ...]
    """Token ids, at least one."""
    sampling: SamplingParams = field(default_factory=SamplingParams)
    on_overflow: Overflow = "error"
    """What to do when the context is full: end, or forget the oldest tokens visibly and go on."""
    keep: int = 0
    """Leading prompt tokens that are never forgotten, such as the system prompt."""
    marks: tuple[int, ...] = ()
    """Lengths of beginnings of the prompt that later prompts are likely to share: what is kept of a recurrent state."""
    begun: int = 0
    """Tokens at the end of the prompt that are the answer's, which is gone on with: penalties count them."""
    constraint: "Constraint | None" = None
    """The form that the answer keeps."""
    logprobs: int | None = None
    """Score each token of the answer, and tell so many of the likeliest beside it."""
    pool: Pool | None = None
    """Write nothing: make a vector of the text, of its last token or the mean of all."""
    forced: tuple[int, ...] = ()
    """What the answer begins with, whatever the model would say: tokens to be scored."""
    remember: bool = True
    """Whether its text may be left on disk, where the engine leaves texts there."""

    def __post_init__(self) -> None:
        if isinstance(self.prompt, (str, bytes)) or isinstance(next(iter(self.prompt), None), str):
            raise not_a_request("text")
        if self.logprobs is not None:
            in_range("logprobs", self.logprobs, 0, MOST_TOP)


def scoring(tokens: Sequence[int], context: int, top: int) -> Request:
    """The request that scores `tokens` behind the first `context` of them. Raises `UsageError` where none are left."""
    if not 0 < context < len(tokens):
        raise UsageError(
            f"{len(tokens)} tokens cannot be scored behind the first {context}",
            hint="give a text of two tokens",
        )
    forced = tuple(tokens[context:])
    chosen = SamplingParams(temperature=0, max_tokens=len(forced), ignore_eos=True)
    return Request(tuple(tokens[:context]), chosen, logprobs=top, forced=forced)


def not_a_request(given: object) -> UsageError:
    """The error for something else where an engine wants a `Request`."""
    text = isinstance(given, (str, bytes))
    what = "text" if text else f"a {type(given).__name__}"
    return UsageError(
        f"an engine takes a `Request` of token ids, not {what}",
        hint="`Chat(engine).reply(text)` answers text; `Request(tuple(engine.tokenizer.encode_text(text)))` goes on "
        "with it as it is",
    )
