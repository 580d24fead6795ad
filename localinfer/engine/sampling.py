"""From a row of logits to a token. The draw is native code; what it is keyed by is decided here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.config import SamplingParams
from localinfer.engine.grammar import NEVER, Matching
from localinfer.errors import LocalInferError

RECENT = 64
"""Tokens at the end of the text that the repeat penalty looks at."""

DRY_TOKENS = 4096
"""Tokens at the end of the text in which repetitions are looked for."""

BREAKERS = ("\n", ":", '"', "*")
"""A token with one of these in its text ends a repetition, as does a control token."""

_NOTHING = np.empty(0, np.int32)


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a model's own files say of its tokens; it holds for every request."""

    never: tuple[int, ...] = ()
    """Tokens that are never chosen."""
    never_first: tuple[int, ...] = ()
    """Tokens that no answer begins with."""
    never_after: tuple[tuple[int, ...], ...] = ()
    """Sequences of two tokens or more that do not occur: the last one is not chosen after the others."""
    penalize_all: bool = False
    """The repeat penalty looks at the whole text, not at its end alone."""


NO_RULES = TokenRules()


def breaker(text_of: Callable[[int], bytes]) -> Callable[[int], bool]:
    """Which tokens end a repetition, by the text of each; one without a text is a control token."""
    marks = tuple(one.encode() for one in BREAKERS)

    @cache
    def breaks(token: int) -> bool:
        text = text_of(token)
        return not text or any(mark in text for mark in marks)

    return breaks


class Sampler:
    """Chooses tokens for one request: a pure function of logits, recent tokens, the request's seed and the position.

    So it does not matter in which step, batch or draft a row was computed.
    """

    def __init__(
        self,
        params: SamplingParams,
        rules: TokenRules = NO_RULES,
        matching: Matching | None = None,
        answer: Sequence[int] = (),
        begun: Sequence[int] = (),
        forced: Sequence[int] = (),
        breaks: Callable[[int], bool] = lambda _: False,
    ) -> None:
        """`matching` is the form that the answer keeps. `answer`, its tokens so far, is looked at again each time;
        `begun` are those before them that were there, and with `forced` it begins in any case. `breaks` says which
        tokens end a repetition."""
        self._params, self._rules = params, rules
        self._matching, self._answer = matching, answer
        self.error: LocalInferError | None = None
        """Why the last row gave no token, where that was the form's doing."""
        self._begun, self._forced, self._breaks = begun, forced, breaks
        self._penalizes = params.repeat_penalty != 1.0
        self._counts = params.presence_penalty != 0 or params.frequency_penalty != 0
        self._biased = np.array([token for token, _ in params.logit_bias], np.int64)
        self._biases = np.array([bias for _, bias in params.logit_bias], np.float32)
        self._never, self._never_first = (np.array(ids, np.int64) for ids in (rules.never, rules.never_first))

    def choose(
        self, logits: NDArray[np.float32], tokens: list[int], taken: list[int], position: int, *, first: bool = False
    ) -> int | None:
        """The token after `tokens` and `taken`, at `position` of the text, the `first` of an answer or not; None where
        a logit is NaN or infinite, or all are the same. `logits` [vocab] are used up."""
        if logits[0] == logits[-1] and len(logits) > 1 and (logits == logits[0]).all():
            return None  # a norm hides an overflow: it makes zeros of it
        at = len(self._answer) + len(taken)
        if at < len(self._forced):
            return self._forced[at] if native.all_finite(logits) else None
        p = self._params
        recent = _NOTHING
        if self._penalizes:
            recent = np.array(self._looked_at(tokens, taken), np.int32)
        if len(self._biased):
            logits[self._biased] += self._biases
        if (self._rules != NO_RULES or self._matching) and native.all_finite(logits):
            if run := self.certain(taken):
                return run[0]
            self._forbid(logits, tokens, taken, first)
            if self.error or (self._matching is not None and not self._keep_form(self._matching, logits, taken)):
                return None
        token = native.sample(
            logits,
            recent,
            p.temperature,
            p.top_k,
            p.top_p,
            p.min_p,
            p.repeat_penalty,
            p.seed,
            position,
            answer=np.array([*self._begun, *self._answer, *taken], np.int32) if self._counts else None,
            dry=self._repeated(tokens, taken) if p.dry_multiplier else None,
            presence_penalty=p.presence_penalty,
            frequency_penalty=p.frequency_penalty,
            dry_multiplier=p.dry_multiplier,
            dry_base=p.dry_base,
            dry_allowed=p.dry_allowed_length,
            top_n_sigma=p.top_n_sigma,
            typical_p=p.typical_p,
            xtc_probability=p.xtc_probability,
            xtc_threshold=p.xtc_threshold,
        )
        return token if token >= 0 else None

    def certain(self, taken: Sequence[int] = ()) -> list[int]:
        """What the form alone lets follow the answer so far and `taken`."""
        if self._matching is None:
            return []
        try:
            return self._matching.forced([*self._begun, *self._answer, *taken])
        except LocalInferError as error:
            self.error = error
            return []

    def _keep_form(self, matching: Matching, logits: NDArray[np.float32], taken: list[int]) -> bool:
        """Give what breaks the form the lowest score; False where the form is lost."""
        try:
            matching.hold(logits, [*self._begun, *self._answer, *taken])
        except LocalInferError as error:
            self.error = error
            return False
        return True

    def _looked_at(self, tokens: list[int], taken: list[int]) -> list[int]:
        """What the repeat penalty counts, in any order."""
        return list({*tokens, *taken}) if self._rules.penalize_all else (tokens[-RECENT:] + taken)[-RECENT:]

    def _repeated(self, tokens: list[int], taken: list[int]) -> NDArray[np.int32]:
        """The text in which repetitions are looked for; what ends them is -1."""
        text = (tokens[-DRY_TOKENS:] + taken)[-DRY_TOKENS:]
        return np.array([-1 if self._breaks(token) else token for token in text], np.int32)

    def _forbid(self, logits: NDArray[np.float32], tokens: list[int], taken: list[int], first: bool) -> None:
        """Give what the rules forbid the lowest score."""
        vocab = len(logits)
        for ids in (self._never, self._never_first) if first else (self._never,):
            logits[ids[(ids >= 0) & (ids < vocab)]] = NEVER
        for *before, last in self._rules.never_after:
            if 0 <= last < vocab and (tokens[-len(before) :] + taken)[-len(before) :] == before:
                logits[last] = NEVER
