"""A needle in a long text: ten codes stand in a diary, and one of them is asked for."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.resources import files

from localinfer.errors import UsageError
from localinfer.tasks.draw import Draw
from localinfer.tasks.items import Item, says_number

TOKENS = 8192
"""Of the prompt and the answer together, where the model's context is not shorter."""

NEEDLES = 10
"""In each text, a tenth of it apart. All of them are asked for one by one, so that each depth has as many items, and
so that the text is read once."""

ANSWER = 48
"""Most tokens of an answer."""

_WORDS = {
    "name": ("Ida", "Tom", "Marit", "Jonas", "Ada", "Lucia", "Piet", "Grandmother", "the doctor", "the smith"),
    "boat": ("Tern", "Petrel", "Aurora", "Skua", "old ferry", "pilot boat", "dredger"),
    "place": ("boathouse", "chapel", "net loft", "schoolroom", "lighthouse", "mill", "station", "dairy", "inn"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "market day"),
    "weather": ("rain", "frost", "wind", "fog", "snow", "heat", "thaw"),
    "thing": ("kettle", "ladder", "piano", "anchor", "sewing machine", "globe", "wheelbarrow", "stove", "map chest"),
}
_COLOURS = ("red", "green", "blue", "white", "grey", "yellow", "black", "brown")
_OBJECTS = ("safe", "locker", "trunk", "cabinet", "strongbox", "gate", "cellar", "workshop", "archive", "pantry")
_BEGINS = "Read this diary. A question follows.\n\n"
_ASK = "\n\nWhat is the code of the {what}? Answer with the number alone."

Count = Callable[[str], int]
"""How many tokens the model reads for a prompt."""


@dataclass(frozen=True, slots=True)
class Needle:
    """What is hidden."""

    what: str
    code: int

    @property
    def sentence(self) -> str:
        return f"The code of the {self.what} is {self.code}."


def needle_items(count: int, tokens_of: Count, room: int) -> list[Item]:
    """The first `count` questions, in texts that fill `room` tokens with question and answer; `tokens_of` counts.

    Raises `UsageError` where not even the needles have room.
    """
    found: list[Item] = []
    for number in range(-(-count // NEEDLES)):
        needles, text = _needles(Draw(f"needles {number}")), _Text(f"haystack {number}")
        sentences = _most(partial(_fits, text, needles, tokens_of, room))
        if sentences < NEEDLES:
            raise UsageError(
                f"the task `needle` needs more context than {room} tokens",
                hint="leave it out: `--tasks arithmetic,code,json`",
            )
        whole = text.with_needles(needles, sentences)
        found += [_item(whole, one, len(found) + at) for at, one in enumerate(needles, 1)]
    return found[:count]


def _fits(text: "_Text", needles: list[Needle], tokens_of: Count, room: int, count: int) -> bool:
    """Whether so many sentences leave room for the longest question and its answer."""
    longest = max((_ASK.format(what=one.what) for one in needles), key=len)
    return tokens_of(text.with_needles(needles, count) + longest) + ANSWER <= room


def _item(text: str, needle: Needle, number: int) -> Item:
    return Item(
        f"needle-{number:03}",
        text + _ASK.format(what=needle.what),
        partial(says_number, answer=needle.code),
        max_tokens=ANSWER,
        lead="Answer:",
        stop=("\n",),
    )


def _needles(draw: Draw) -> list[Needle]:
    """Ten different things with ten different codes of five digits."""
    things = [f"{colour} {thing}" for colour in _COLOURS for thing in _OBJECTS]
    codes: list[int] = []
    while len(codes) < NEEDLES:
        code = draw.between(10_000, 99_999)
        codes += [code] * (code not in codes)
    return [Needle(what, code) for what, code in zip(draw.some(things, NEEDLES), codes, strict=True)]


class _Text:
    """As many sentences as are asked for; the first of them are the same however many."""

    def __init__(self, name: str) -> None:
        self._sentences: list[str] = []
        self._more = _sentences(Draw(name))

    def with_needles(self, needles: list[Needle], count: int) -> str:
        """`count` sentences in paragraphs, and the needles among them, each in the middle of its tenth."""
        while len(self._sentences) < count:
            self._sentences.append(next(self._more))
        lines = self._sentences[:count]
        for at in reversed(range(len(needles))):
            lines.insert((2 * at + 1) * count // (2 * len(needles)), needles[at].sentence)
        return _BEGINS + "\n\n".join(" ".join(lines[i : i + 8]) for i in range(0, len(lines), 8))


def _sentences(draw: Draw) -> Iterator[str]:
    """Sentences without end: all forms in a drawn order, then all again in another."""
    text = (files("localinfer.tasks") / "data" / "haystack.txt").read_text(encoding="utf-8")
    forms = [line for line in text.splitlines() if line and not line.startswith("#")]
    while True:
        for form in draw.some(forms, len(forms)):
            words = form
            for slot, choices in _WORDS.items():
                while f"{{{slot}}}" in words:
                    words = words.replace(f"{{{slot}}}", draw.one(choices), 1)
            yield words[:1].upper() + words[1:]


def _most(fits: Callable[[int], bool]) -> int:
    """The largest number that fits; 0 if 1 does not."""
    low, high = 0, 1
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
