"""Answers that keep a form: a JSON schema, a regular expression. Which tokens may come next, of the text so far alone.

So a draft, a batch, a preemption or another seed changes nothing: the mask of a row depends on the tokens before it,
as all else does that the sampler looks at. The automata are llguidance's.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self
from weakref import WeakKeyDictionary, ref

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.engine.elsewhere import Elsewhere
from localinfer.engine.grammar_formats import narrowed
from localinfer.engine.grammar_probe import refuse_explosive
from localinfer.errors import NotSupported, UsageError
from localinfer.text import one_line

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


MOST_CHARACTERS = 1 << 18
"""Of a schema or an expression."""

_LIMITS: dict[str, Any] = {"step_lexer_fuel": 100_000, "verbose_errors": False}
"""Work that reading a form, and one step in it, may take; far more than schemas in use need."""


NEVER = np.finfo(np.float32).min
"""The score of what must not be said: finite, and far below all that a model gives."""

_SPACE = r"[\x20\x0A\x0D\x09]{1,40}"
"""What may stand between the words of JSON: enough for lines and indents, and no model can go on with it for ever."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """The form of an answer. `text` is a JSON schema, a regular expression for the whole of it, or rules in Lark's way
    of writing, one a line, of which `start` is the whole (`rules`) or `answer` (`lark`, forms of our own)."""

    kind: Literal["json_schema", "regex", "lark", "rules"]
    text: str

    def __post_init__(self) -> None:
        if len(self.text) > MOST_CHARACTERS:
            raise UsageError(
                f"the {self.word} has {len(self.text)} characters, more than {MOST_CHARACTERS}",
                hint="give a smaller one",
            )

    @property
    def word(self) -> str:
        return {"json_schema": "schema", "regex": "expression", "rules": "grammar"}.get(self.kind, "form")


def from_rules(text: str) -> Grammar:
    """A grammar in Lark's way of writing, with `start`, or in GBNF, with `root`. Raises `UsageError` for what is
    neither."""
    from llguidance.gbnf_to_lark import any_to_lark

    given = Grammar("rules", text)
    try:
        return Grammar("rules", any_to_lark(given.text)) if given.text.strip() else _nothing()
    except RecursionError:
        told = "it has too many brackets in each other"
    except Exception as error:  # the converter raises plain ones
        told = one_line(str(error), 200)
    raise UsageError(f"this grammar is neither Lark nor GBNF: {told}", hint="begin with `start: …` or `root ::= …`")


def _nothing() -> Grammar:
    raise UsageError("the grammar is empty", hint="begin with `start: …` or `root ::= …`")


ANY_OBJECT = Grammar("json_schema", '{"type": "object"}')


class FormLost(UsageError):
    """The automaton gave up in the middle of an answer."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Tokens around a model's reasoning, which has no form. `begun`: the prompt ended inside it."""

    opening: int | None
    closing: int
    begun: bool


class Constraint:
    """A form that was read for one tokenizer; requests may share it. Without a `grammar` only the reasoning is bounded.
    Raises `UsageError` for one that cannot be read, is too large, or that nothing keeps; `NotSupported` for a tokenizer
    without a token that ends an answer."""

    budget: int | None = None
    """Tokens that the reasoning may have; None for any number."""

    def __init__(self, grammar: Grammar | None, tokenizer: Tokenizer, marks: Marks | None = None) -> None:
        self.grammar, self.marks = grammar, marks
        self.eos, self.vocab_size = frozenset(tokenizer.eos_ids), tokenizer.vocab_size
        if grammar is None:
            return
        refuse_explosive(grammar.kind, grammar.text)
        self._tokens = _known_tokenizer(tokenizer)
        begun = marks is not None and marks.begun
        self._direct = None if begun else self._read(grammar, _plain(grammar))
        self._later = self._read(grammar, _behind_thinking(grammar)) if marks else None

    def within(self, budget: int | None) -> Self:
        """The same with a bound on the reasoning."""
        found = copy(self)
        found.budget = budget
        return found

    def begin(self) -> "Matching":
        """For one answer."""
        return Matching(self)

    def matcher(self, *, later: bool) -> "LLMatcher":
        """An automaton at its beginning, `later` for behind reasoning."""
        found = self._later if later else self._direct
        assert found is not None
        return found.deep_copy()

    def _read(self, grammar: Grammar, text: str) -> "LLMatcher":
        from llguidance import LLMatcher, LLParserLimits

        matcher = LLMatcher(self._tokens, text, log_level=0, limits=LLParserLimits(**_LIMITS))
        if not matcher.is_error() and not any(matcher.compute_bitmask()):
            raise UsageError(f"nothing keeps this {grammar.word}", hint="loosen it")
        matcher.deep_copy().compute_ff_tokens() if not matcher.is_error() else None
        if matcher.is_error():
            told = one_line(matcher.get_error(), 300)
            raise UsageError(f"this {grammar.word} cannot be kept: {told}", hint="simplify it")
        return matcher


class Unread(Constraint):
    """A form that is to be read elsewhere."""

    def __init__(self, grammar: Grammar | None, marks: Marks | None) -> None:
        self.grammar, self.marks = grammar, marks


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
        return answer.index(marks.closing) + 1 if marks.closing in answer else None

    def _thought(self, answer: Sequence[int]) -> NDArray[np.uint8] | None:
        """What may follow within the reasoning: anything, or its end where its tokens are spent."""
        constraint, marks = self._constraint, self._constraint.marks
        assert marks is not None
        if constraint.budget is None or len(answer) - (not marks.begun) < constraint.budget:
            return None
        found = np.zeros(-(-constraint.vocab_size // 8), np.uint8)
        found[marks.closing >> 3] = 1 << (marks.closing & 7)
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
        f"the form of the answer became too large to follow: {one_line(matcher.get_error(), 200)}",
        hint="simplify the schema or the expression",
    )


def _plain(grammar: Grammar) -> str:
    from llguidance import LLMatcher

    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(grammar.text)
    if grammar.kind == "lark":
        return LLMatcher.grammar_from_lark(f"start: answer\n{grammar.text}")
    if grammar.kind == "rules":
        return LLMatcher.grammar_from_lark(grammar.text)
    return LLMatcher.grammar_from_json_schema(_schema(grammar))


def _behind_thinking(grammar: Grammar) -> str:
    """The same, behind the line breaks that models write there."""
    from llguidance import LLMatcher

    if grammar.kind == "rules":  # a grammar in a grammar: names of rules may be the same
        outer = {"lark_grammar": "start: BREAKS? @answer\nBREAKS: /\\n{1,2}/\n"}
        return json.dumps({"grammars": [outer, {"name": "answer", "lark_grammar": grammar.text}]})
    if grammar.kind == "lark":
        rules = grammar.text
    elif grammar.kind == "json_schema":
        rules = f"answer: %json {_schema(grammar)}\n"
    else:
        rules = f"answer: /{_escaped(grammar.text)}/\n"
    return LLMatcher.grammar_from_lark(f"start: BREAKS? answer\nBREAKS: /\\n{{1,2}}/\n{rules}")


def _escaped(expression: str) -> str:
    """An expression as it stands between two slashes."""
    out, escaped = "", False
    for character in expression:
        out += "\\/" if character == "/" and not escaped else {"\n": "\\n", "\r": "\\r"}.get(character, character)
        escaped = character == "\\" and not escaped
    return out


def _schema(grammar: Grammar) -> str:
    """The schema on one line. Raises `UsageError` for text that is none."""
    try:
        schema: Any = json.loads(grammar.text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the schema is no JSON: {one_line(str(error), 100)}", hint="give a JSON schema") from None
    if not isinstance(schema, dict | bool):
        raise UsageError("the schema is neither an object nor true or false", hint="give a JSON schema")
    if isinstance(schema, bool):
        return grammar.text
    return json.dumps({**narrowed(schema), "x-guidance": {"whitespace_pattern": _SPACE}})


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
_tokenizers: "WeakKeyDictionary[Tokenizer, LLTokenizer]" = WeakKeyDictionary()


def _known_tokenizer(tokenizer: Tokenizer) -> "LLTokenizer":
    """The vocabulary as llguidance wants it, made once a model."""
    found = _tokenizers.get(tokenizer)
    if found is None:
        from llguidance import LLTokenizer, TokenizerWrapper

        if not tokenizer.eos_ids:
            raise NotSupported("this model has no token that ends an answer", hint="leave the form out")
        found = LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer)), eos_token=list(tokenizer.eos_ids))
        _tokenizers[tokenizer] = found
    return found


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
