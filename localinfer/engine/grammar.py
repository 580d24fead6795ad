"""Answers that keep a form: a JSON schema, a regular expression. Which tokens may come next, of the text so far alone.

So a draft, a batch, a preemption or another seed changes nothing: the mask of a row depends on the tokens before it,
as all else does that the sampler looks at. The automata are llguidance's.
"""

from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import takewhile
from math import ceil
from random import Random
from typing import TYPE_CHECKING, Any, Protocol, Self
from weakref import WeakKeyDictionary, ref

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.engine.elsewhere import Elsewhere
from localinfer.engine.form import ANY_OBJECT as ANY_OBJECT
from localinfer.engine.form import FormLost as FormLost
from localinfer.engine.form import Grammar as Grammar
from localinfer.engine.form import from_rules as from_rules
from localinfer.engine.grammar_errors import endless, nothing_keeps, reason, told
from localinfer.engine.grammar_probe import may_explode, probe
from localinfer.engine.grammar_writing import behind_thinking, plain
from localinfer.engine.shortest import ENDLESS, PARTS
from localinfer.errors import NotSupported, UsageError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer


class Tokenizer(Protocol):
    """What is asked of a tokenizer here; `engine.protocol.Tokenizer` has more."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def eos_ids(self) -> tuple[int, ...]: ...
    @property
    def bos_id(self) -> int | None: ...
    def encode_text(self, text: str) -> list[int]: ...
    def token_bytes(self, token: int, *, specials: bool = False) -> bytes: ...


TRIED = 48
"""Tokens of chance that a form that may explode is followed for, before it is taken."""

_LIMITS: dict[str, Any] = {"step_lexer_fuel": 100_000, "verbose_errors": False}
"""Work that reading a form, and one step in it, may take; far more than schemas in use need."""


NEVER = np.finfo(np.float32).min
"""The score of what must not be said: finite, and far below all that a model gives."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Tokens around a model's reasoning, which has no form. `begun`: the prompt ended inside it. With `final` it is all
    that comes before the message whose header begins with these tokens; `closing` ends that header."""

    opening: int | None
    closing: int
    begun: bool
    final: tuple[int, ...] = ()

    def end(self, answer: Sequence[int]) -> int | None:
        """How many tokens of `answer` the reasoning is; None where it goes on."""
        size, first = len(self.final), 0
        if size:
            starts = (at for at in range(len(answer) - size) if tuple(answer[at : at + size]) == self.final)
            first = next(starts, len(answer))
        return next((at + 1 for at in range(first, len(answer)) if answer[at] == self.closing), None)


class Constraint:
    """A form that was read for one tokenizer; requests may share it. Without a `grammar` only the reasoning is bounded.
    Raises `UsageError` for one that cannot be read, is too large, or that nothing keeps; `NotSupported` for a tokenizer
    without a token that ends an answer."""

    budget: int | None = None
    """Tokens that the reasoning may have; None for any number."""

    length = 0.0
    """Of the shortest text that keeps it, at least, in parts of a token."""

    def __init__(self, grammar: Grammar | None, tokenizer: Tokenizer, marks: Marks | None = None) -> None:
        self.grammar, self.marks = grammar, marks
        self.eos, self.vocab_size = frozenset(tokenizer.eos_ids), tokenizer.vocab_size
        if grammar is None:
            return
        self._tokens, digits = _known_tokenizer(tokenizer)
        self.length = probe(grammar.kind, grammar.text, PARTS / digits)
        if self.length == ENDLESS:
            raise endless(grammar)
        if may_explode(grammar.kind, grammar.text):
            self._try_out(self._read(grammar, plain(grammar)))
        begun = marks is not None and marks.begun
        self._direct = None if begun else self._read(grammar, plain(grammar))
        self._later = self._read(grammar, behind_thinking(grammar)) if marks else None

    def within(self, budget: int | None) -> Self:
        """The same with a bound on the reasoning."""
        found = copy(self)
        found.budget = budget
        return found

    def begin(self, begun: Sequence[int] = ()) -> "Matching":
        """For one answer, or for the rest of one: runs of tokens that are forced begin where they did then."""
        matching, at = Matching(self), 0
        while at < len(begun):
            at += max(1, len(matching.forced(begun[:at])))
        return matching

    def require_room(self, context: int, most: int | None, begun: int) -> None:
        """Raise `UsageError` where the rest of an answer of which `begun` tokens are there needs more than `context`
        tokens, or more than the `most` that it may have."""
        need = ceil(self.length / PARTS) - begun
        if self.grammar is None or need <= min(context, most or context):
            return
        limit = f"the {context} that the context has left", "raise `--ctx-size`"
        if most and most <= context:
            limit = f"{most}, the most that were asked for", "raise `--max-tokens`"
        raise UsageError(
            f"the shortest text of this {self.grammar.word} takes about {need} tokens, more than {limit[0]}",
            hint=f"{limit[1]}, or let less be required (`minItems`, `minLength`, `required`, `{{n}}`)",
        )

    def require_kept(self, begun: Sequence[int]) -> None:
        """Raise `UsageError` unless an answer may begin with these tokens."""
        try:
            self.begin().allowed(begun)
        except FormLost:
            raise UsageError(
                "what there is of the answer does not keep the form that the rest is to have",
                hint="ask anew, or leave the form out",
            ) from None

    def matcher(self, *, later: bool) -> "LLMatcher":
        """An automaton at its beginning, `later` for behind reasoning."""
        found = self._later if later else self._direct
        assert found is not None
        return found.deep_copy()

    def _try_out(self, matcher: "LLMatcher") -> None:
        """Raise `UsageError` where a text of chance becomes too large to follow within `TRIED` tokens."""
        chance = Random(0)
        for _ in range(TRIED):
            bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
            if matcher.is_error():
                raise _lost(matcher)
            allowed = [int(one) for one in np.flatnonzero(np.unpackbits(bits, bitorder="little"))]
            if self.eos.issuperset(allowed):
                return
            matcher.consume_token(chance.choice([one for one in allowed if one not in self.eos]))

    def _read(self, grammar: Grammar, text: str) -> "LLMatcher":
        from llguidance import LLMatcher, LLParserLimits

        matcher = LLMatcher(self._tokens, text, log_level=0, limits=LLParserLimits(**_LIMITS))
        if not matcher.is_error() and not any(matcher.compute_bitmask()):
            raise nothing_keeps(grammar)
        matcher.deep_copy().compute_ff_tokens() if not matcher.is_error() else None
        if matcher.is_error():
            raise told(grammar, matcher.get_error())
        return matcher


def check(grammar: Grammar) -> None:
    """Raise what `Constraint` does for a form that cannot be kept, whatever the model."""
    Constraint(grammar, _BYTES)


class Unread(Constraint):
    """A form that is to be read elsewhere."""

    def __init__(self, grammar: Grammar | None, marks: Marks | None) -> None:
        self.grammar, self.marks = grammar, marks

    def require_kept(self, begun: Sequence[int]) -> None:
        """Looked at where it is read."""


class Matching:
    """One answer against its form."""

    def __init__(self, constraint: Constraint) -> None:
        self._constraint = constraint
        self._matcher: LLMatcher | None = None
        self._consumed: list[int] = []
        self._later = False
        self._run: tuple[list[int], list[int]] | None = None
        """Where the last run of tokens that are forced began, and the run, which may be empty."""

    def hold(self, logits: NDArray[np.float32], answer: Sequence[int]) -> None:
        """Give every token that may not follow those of `answer` the lowest score, in `logits` [vocab], all of them
        finite. Raises `FormLost`."""
        bits = self.allowed(answer)
        if bits is None:
            return
        native.hold(logits, bits)
        logits[self._constraint.vocab_size :] = NEVER

    def allowed(self, answer: Sequence[int]) -> NDArray[np.uint8] | None:
        """Which tokens may follow those of `answer`, a bit each, the lowest first; None for all. Raises `FormLost`."""
        constraint, marks = self._constraint, self._constraint.marks
        if not constraint.eos.isdisjoint(answer):
            return None
        begin = self._begins(answer)
        if begin is None:
            return self._thought(answer)
        if constraint.grammar is None:
            return None
        found = self._mask(list(answer[begin:]), later=begin > 0)
        if marks is not None and not answer and marks.opening is not None:
            found = found.copy()
            found[marks.opening >> 3] |= 1 << (marks.opening & 7)
        return found

    def forced(self, answer: Sequence[int]) -> list[int]:
        """The tokens that must follow those of `answer`, as its tokenizer would cut them; none where there is a choice,
        and none that ends the answer. A function of `answer` alone: each is asked for behind the one before it."""
        constraint, marks = self._constraint, self._constraint.marks
        begin = self._begins(answer)
        may_think = marks is not None and marks.opening is not None and not answer
        if begin is None or may_think or constraint.grammar is None or not constraint.eos.isdisjoint(answer):
            return []
        if self._run is not None:
            text, run = self._run
            is_within = len(text) <= len(answer) < len(text) + max(len(run), 1)
            if is_within and list(answer) == (text + run)[: len(answer)]:
                return run[len(answer) - len(text) :]
        run = self._at(list(answer[begin:]), later=begin > 0).compute_ff_tokens()
        run = list(takewhile(lambda token: token not in constraint.eos, run))
        self._run = list(answer), run
        return run

    def _begins(self, answer: Sequence[int]) -> int | None:
        """How many tokens stand before what has a form; None while the model thinks."""
        marks = self._constraint.marks
        if marks is None or not (marks.begun or (answer and answer[0] == marks.opening)):
            return 0
        return marks.end(answer)

    def _thought(self, answer: Sequence[int]) -> NDArray[np.uint8] | None:
        """What may follow within the reasoning: anything but the end of an answer that is to have a form, or the end of
        the reasoning where its tokens are spent. Messages begin with a header."""
        constraint, marks = self._constraint, self._constraint.marks
        assert marks is not None
        spent = constraint.budget is not None and len(answer) - (not marks.begun) >= constraint.budget
        if not spent and constraint.grammar is None:
            return None
        found = np.full(-(-constraint.vocab_size // 8), 0 if spent else 255, np.uint8)
        for token in (marks.closing,) if spent else constraint.eos:
            found[token >> 3] ^= 1 << (token & 7)
        if marks.final and not answer:
            found[:] = 0
            found[marks.final[0] >> 3] = 1 << (marks.final[0] & 7)
        return found

    def _mask(self, text: list[int], *, later: bool) -> NDArray[np.uint8]:
        matcher = self._at(text, later=later)
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        if matcher.is_error():
            raise _lost(matcher)
        return bits

    def _at(self, text: list[int], *, later: bool) -> "LLMatcher":
        """The automaton behind `text`: it goes back to what is common and forward from there."""
        if self._matcher is None or self._later != later:
            self._matcher, self._consumed, self._later = self._constraint.matcher(later=later), [], later
        same = len(self._consumed)
        if text[:same] != self._consumed:
            pairs = zip(self._consumed, text, strict=False)
            same = next((n for n, (one, other) in enumerate(pairs) if one != other), min(same, len(text)))
        if back := len(self._consumed) - same:
            self._matcher.rollback(back)
        if not self._matcher.consume_tokens(text[same:]):
            raise _lost(self._matcher)
        self._consumed = text
        return self._matcher


def _lost(matcher: "LLMatcher") -> FormLost:
    return FormLost(
        f"the form of the answer became too large to follow{reason(matcher.get_error())}",
        hint="simplify the schema or the expression",
    )


MOST_KEPT = 16
"""Forms that are kept for a model, so that each is read once for many answers."""


def read(
    grammar: Grammar | None, tokenizer: Tokenizer, marks: Marks | None = None, budget: int | None = None
) -> Constraint:
    """The form for this tokenizer, which is read if it was not used of late; `budget` is how many tokens the reasoning
    before it may have. Raises as `Constraint` does."""
    if isinstance(tokenizer, Elsewhere):
        return Unread(grammar, marks).within(budget)
    kept = _read_of_late.setdefault(tokenizer, OrderedDict())
    found = kept.pop((grammar, marks), None) or Constraint(grammar, tokenizer, marks)
    kept[grammar, marks] = found
    if len(kept) > MOST_KEPT:
        kept.popitem(last=False)
    return found if budget is None else found.within(budget)


_read_of_late: "WeakKeyDictionary[Tokenizer, OrderedDict[tuple[Grammar | None, Marks | None], Constraint]]" = (
    WeakKeyDictionary()
)
_tokenizers: "WeakKeyDictionary[Tokenizer, tuple[LLTokenizer, int]]" = WeakKeyDictionary()


def _known_tokenizer(tokenizer: Tokenizer) -> "tuple[LLTokenizer, int]":
    """The vocabulary as llguidance wants it, made once a model, and how many digits a token has at most."""
    found = _tokenizers.get(tokenizer)
    if found is None:
        from llguidance import LLTokenizer, TokenizerWrapper

        if not tokenizer.eos_ids:
            raise NotSupported("this model has no token that ends an answer", hint="leave the form out")
        vocabulary = _Vocabulary(tokenizer)
        digits = max((len(token) for token in vocabulary.tokens if token.strip().isdigit()), default=1)
        found = LLTokenizer(TokenizerWrapper(vocabulary), eos_token=list(tokenizer.eos_ids)), min(digits, int(PARTS))
        _tokenizers[tokenizer] = found
    return found


class _Bytes:
    """A token for each byte, and one that ends an answer: the smallest tokenizer that can say everything."""

    vocab_size, eos_ids, bos_id = 257, (256,), None

    def encode_text(self, text: str) -> list[int]:
        return list(text.encode("utf-8", "replace"))

    def token_bytes(self, token: int, *, specials: bool = False) -> bytes:
        return bytes([token]) if token < 256 else b"<end>" * specials


_BYTES = _Bytes()


class _Vocabulary:
    """What llguidance asks of a tokenizer. It keeps none alive: what is made of it is kept for as long as it lives."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = ref(tokenizer)
        ids = range(tokenizer.vocab_size)
        self.eos_token_id, self.bos_token_id = tokenizer.eos_ids[0], tokenizer.bos_id
        text = [tokenizer.token_bytes(one) for one in ids]
        self.special_token_ids = [one for one in ids if not text[one]]
        self.tokens = [text[one] or tokenizer.token_bytes(one, specials=True) for one in ids]

    def __call__(self, text: bytes | str) -> list[int]:
        plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        tokenizer = self._tokenizer()
        return tokenizer.encode_text(plain) if tokenizer is not None else []
