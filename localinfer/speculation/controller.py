"""Who guesses, and how far: as many tokens for the time as can be had, and never much time lost.

A step of n rows costs little more than a step of one, as long as it waits for memory. Each step, every guess that could
be checked has a chance of being right and a price in time; the guesses of all texts, the likeliest first, are taken
up to the number that gives the most tokens a second. The loss budget bounds what this may lose when the text changes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from localinfer.speculation.cost import Part, StepCost
from localinfer.speculation.drafter import Ask, Drafter, Reads
from localinfer.speculation.loss_budget import LossBudget
from localinfer.speculation.record import NO_CHAIN, Chain, Record

LEAST_GAIN = 1.01
"""A step with drafts must promise this many times the tokens a second of one without."""

CAREFUL = 3
"""A drafter with a model is tried only while the loss budget holds so many times what that may lose."""

DEEPEST = 8
"""Guesses in a row that a drafter with a model is asked for at most."""

REFRESH = 64
"""At least one step in so many goes without drafts, so that the cost of plain steps stays known."""

REST = 1.0
"""Plain steps that an empty loss budget must hold before anybody is asked again. Asking takes time, too: if it began
again at once, it would keep the budget empty for good."""

USED_UP = "the time that drafts may lose is used up"


@dataclass(frozen=True, slots=True)
class Worth:
    """A step as it was, in seconds: what it took, drafting included, and what one without drafts would have taken."""

    seconds: float
    plain: float


@dataclass(frozen=True, slots=True)
class _Step:
    """The step that is under way. `parts` hold the guesses, too."""

    parts: list[Part]
    asks: Sequence[Ask]
    chains: list[Chain]
    plain: float
    drafting: float
    asked: Sequence[Record]
    """Drafters with a model that were asked."""


@dataclass(frozen=True, slots=True)
class _Most:
    """So many guesses of each text, which give `rate` tokens a second."""

    counts: Sequence[int]
    rate: float
    likeliest: int | None
    """Which text has the likeliest guess, if there are any."""
    stopped: bool
    """Whether the loss budget allowed no more."""


class Controller:
    """Chooses guesses for each step of an engine; told afterwards what became of them.

    `cost` is what steps take on this machine; `most_rows` guesses fit into a step; `clock` gives seconds.
    """

    def __init__(
        self, drafters: Sequence[Drafter], cost: StepCost, *, most_rows: int, clock: Callable[[], float]
    ) -> None:
        self.loss_budget = LossBudget()
        self.why_off = ""
        """Why the last step had no guesses; empty if it had some."""
        self._records = {drafter.name: Record(drafter) for drafter in drafters}
        self._readers = [drafter for drafter in drafters if isinstance(drafter, Reads)]
        self._cost, self._most_rows, self._clock = cost, most_rows, clock
        self._step: _Step | None = None
        self._with_drafts = 0
        """Steps with drafts since the last one without."""
        self._resting = False
        self._asked: list[Record] = []

    def draft(self, parts: Sequence[Part], asks: Sequence[Ask], indices: Sequence[int]) -> list[Chain]:
        """What to check in a step of `parts`; `parts[places[i]]` is the one row of the text of `asks[i]`.

        Gives a chain for each ask. `settle` must follow, or `draft` again if the step came to nothing.
        """
        started = self._clock()
        plain = self._cost.seconds(parts)
        self.why_off = ""
        self._asked.clear()
        if self._with_drafts >= REFRESH:
            chains, self.why_off = [NO_CHAIN] * len(asks), "one step without, to know its cost"
        elif not self._rested(plain):
            chains, self.why_off = [NO_CHAIN] * len(asks), USED_UP
        else:
            proposals = self._proposals(parts, asks, indices, plain)
            chains = self._chosen(parts, asks, indices, proposals, plain, self._clock() - started)
        grown = list(parts)
        for chain, index in zip(chains, indices, strict=True):
            grown[index] = Part(parts[index].rows + len(chain.tokens), parts[index].context)
        if any(chain.tokens for chain in chains):
            self.why_off = ""
        self._step = _Step(grown, asks, chains, plain, self._clock() - started, tuple(self._asked))
        return chains

    def settle(self, accepted: Sequence[int], seconds: float) -> Worth:
        """The step is done, after `seconds` without drafting; of each ask's guesses so many were right."""
        step = self._step
        assert step is not None
        self._step = None
        self._cost.learn(step.parts, seconds)
        for ask, chain, right in zip(step.asks, step.chains, accepted, strict=True):
            if chain.drafter is not None:
                self._records[chain.drafter].learn(ask.handle, chain, right)
        total = seconds + step.drafting
        emitted = 1 + sum(accepted) / max(1, len(step.asks))
        for record in step.asked:
            record.won(emitted - total / step.plain)
        if not any(chain.tokens for chain in step.chains):
            self._with_drafts = 0
            self.loss_budget.settle(total, -step.drafting)
            return Worth(total, seconds)
        self._with_drafts += 1
        self.loss_budget.settle(total, step.plain * emitted - total)
        return Worth(total, step.plain)

    @property
    def reads(self) -> bool:
        """Whether somebody wants to be told what is read."""
        return bool(self._readers)

    def read(self, handle: int, tokens: Sequence[int], start: int, end: int, hidden: Any) -> None:
        """As `Reads.read`, for all drafters that follow the text."""
        for reader in self._readers:
            reader.read(handle, tokens, start, end, hidden)

    def forget(self, handle: int) -> None:
        """The text is over, or its beginning has changed."""
        for record in self._records.values():
            record.forget(handle)

    def close(self) -> None:
        """Give back what the drafters hold."""
        for record in self._records.values():
            record.drafter.close()

    def _rested(self, plain: float) -> bool:
        """Whether the loss budget holds something, and enough of it if it was empty a while ago."""
        self._resting = not self.loss_budget.allows(REST * plain if self._resting else 0.0, plain)
        return not self._resting

    def _proposals(
        self, parts: Sequence[Part], asks: Sequence[Ask], indices: Sequence[int], plain: float
    ) -> list[Chain]:
        """The best chain that is to be had for each text, whoever makes it."""
        best, worth = [NO_CHAIN] * len(asks), [0.0] * len(asks)
        for record in self._records.values():
            which = list(range(len(asks)))
            depth = self._most_rows
            if not record.drafter.free:
                if not record.keeps_its_word and not record.tries_again():
                    self.why_off = f"{record.drafter.name}: guesses would not pay"
                    continue
                which = [i for i in which if not worth[i] or worth[i] < record.likely(asks[i])]
                rate = self._most(parts, asks, indices, best, plain, 0.0).rate / len(asks)
                depth = self._depth(record, parts, [asks[i] for i in which], [indices[i] for i in which], plain, rate)
            if not which or not depth:
                continue
            asked = [asks[i] if asks[i].most <= depth else replace(asks[i], most=depth) for i in which]
            started = self._clock()
            drafts = record.drafter.propose(asked)
            if not record.drafter.free:
                deepest = max((len(draft.tokens) for draft in drafts), default=0)
                record.time(self._clock() - started, deepest, plain)
                self._asked.append(record)
            for i, ask, draft in zip(which, asked, drafts, strict=True):
                chain = record.chain(ask, draft)
                if (likely := sum(chain.alive)) > worth[i]:
                    best[i], worth[i] = chain, likely
        if not self.why_off and not any(chain.tokens for chain in best):
            self.why_off = "nothing to guess from"
        return best

    def _depth(
        self,
        record: Record,
        parts: Sequence[Part],
        asks: Sequence[Ask],
        indices: Sequence[int],
        plain: float,
        rate: float,
    ) -> int:
        """How far a drafter that runs a model should guess for `asks`; 0: not now. It must promise more than `rate`
        tokens a second and text, which is to be had without it."""
        if not asks:
            return 0
        best, depth, affordable = rate, 0, 0
        alive, tokens = [1.0] * len(asks), 1.0
        price, rows = record.price(plain), sum(part.rows for part in parts)
        contexts = [parts[index].context for index in indices]
        others = self._cost.seconds(parts) - self._cost.rows(rows) - sum(self._cost.context(parts[p]) for p in indices)
        for k in range(1, min(self._most_rows // len(asks), max(ask.most for ask in asks), DEEPEST) + 1):
            seconds = k * price + self._cost.rows(rows + k * len(asks)) + others
            seconds += sum(self._cost.context(Part(1 + k, context)) for context in contexts)
            # What is free must never wait for the loss budget that a dear drafter has emptied while it was being tried.
            if not self.loss_budget.allows((1 if record.trusted else CAREFUL) * (seconds - plain), plain):
                break
            affordable = k
            alive = [a * record.luck.expected(ask.handle, k - 1) for a, ask in zip(alive, asks, strict=True)]
            tokens += sum(alive) / len(alive)
            if tokens / seconds > best:
                best, depth = tokens / seconds, k
            elif k > depth + 2:  # it only gets worse
                break
        if depth and record.keeps_its_word:
            record.pays()
            return depth
        if affordable and (not record.keeps_its_word or record.tries_again()):
            return max(1, min(depth, affordable))
        self.why_off = f"{record.drafter.name}: guesses would not pay"
        return 0

    def _chosen(
        self,
        parts: Sequence[Part],
        asks: Sequence[Ask],
        indices: Sequence[int],
        proposals: Sequence[Chain],
        plain: float,
        spent: float,
    ) -> list[Chain]:
        """The guesses to check."""
        most = self._most(parts, asks, indices, proposals, plain, spent)
        counts = list(most.counts)
        if most.stopped:
            self.why_off = USED_UP
        elif most.likeliest is not None and not any(counts) and self._tries_anyway(proposals[most.likeliest]):
            counts[most.likeliest] = 1
        elif most.likeliest is not None and not any(counts) and not self.why_off:
            crowded = sum(part.rows for part in parts) > 1
            self.why_off = "the batch has used up the free rows" if crowded else "guesses are not sure enough to pay"
        return [_cut(chain, count) for chain, count in zip(proposals, counts, strict=True)]

    def _most(
        self,
        parts: Sequence[Part],
        asks: Sequence[Ask],
        indices: Sequence[int],
        proposals: Sequence[Chain],
        plain: float,
        spent: float,
    ) -> _Most:
        """The likeliest guesses of all texts, as many as give the most tokens for the time, `spent` s included."""
        least = LEAST_GAIN * len(asks) / (spent + plain)
        if all(chain is NO_CHAIN for chain in proposals):
            return _Most([0] * len(asks), least, None, False)
        order = sorted((-chance, i) for i, chain in enumerate(proposals) for chance in chain.alive)
        counts, taken = [0] * len(asks), [0] * len(asks)
        rows = sum(part.rows for part in parts)
        deep = [self._cost.context(part) for part in parts]
        tokens, best, context = float(len(asks)), least, sum(deep)
        stopped = False
        for n, (minus_chance, i) in enumerate(order[: self._most_rows], 1):
            counts[i] += 1
            tokens -= minus_chance
            part, index = parts[indices[i]], indices[i]
            longer = self._cost.context(Part(part.rows + counts[i], part.context))
            context, deep[index] = context + longer - deep[index], longer
            seconds = spent + self._cost.rows(rows + n) + context
            stopped = not self.loss_budget.allows(seconds - plain, plain)
            if stopped:
                break
            if tokens > best * seconds:
                best, taken = tokens / seconds, list(counts)
        return _Most(taken, best, order[0][1] if order else None, stopped)

    def _tries_anyway(self, chain: Chain) -> bool:
        """Whether it is time to try one guess of a drafter whose guesses do not seem to pay."""
        record = self._records[chain.drafter or ""]
        return record.drafter.free and record.tries_again()


def _cut(chain: Chain, count: int) -> Chain:
    if not count:
        return NO_CHAIN
    return replace(chain, tokens=chain.tokens[:count], confidence=chain.confidence[:count], alive=chain.alive[:count])
