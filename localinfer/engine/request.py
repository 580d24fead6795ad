"""What is asked of an engine: one text to be continued."""

from dataclasses import dataclass, field

from localinfer.config import Overflow, SamplingParams
from localinfer.engine.grammar import Constraint
from localinfer.errors import UsageError


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

    constraint: Constraint | None = None
    """The form that the answer keeps."""

    def __post_init__(self) -> None:
        if isinstance(self.prompt, (str, bytes)) or isinstance(next(iter(self.prompt), None), str):
            raise not_a_request("text")


def not_a_request(given: object) -> UsageError:
    """The error for something else where an engine wants a `Request`."""
    text = isinstance(given, (str, bytes))
    what = "text" if text else f"a {type(given).__name__}"
    return UsageError(
        f"an engine takes a `Request` of token ids, not {what}",
        hint="`Chat(engine).reply(text)` answers text; `Request(tuple(engine.tokenizer.encode_text(text)))` goes on "
        "with it as it is",
    )
