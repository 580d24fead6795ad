"""Tries a form out in a process that can be killed: few characters can ask for hours and gigabytes of automata.

The child reads `{"kind", "text", "digit", "seconds"}` from standard input, then the form for an alphabet of bytes,
writes how long its shortest text is, and ends.
"""

import json
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from localinfer.errors import UsageError
from localinfer.text import one_line

if TYPE_CHECKING:
    from llguidance import LLTokenizer

CPU_SECONDS = 4
"""Processor time that reading a form may take."""

WALL_SECONDS = 30.0
"""The same on the clock of a busy machine."""

MEMORY_BYTES = 1 << 30
"""Address space beyond what the process has when it begins."""


MOST_UNFOLDED = 100_000
"""Characters that an expression may match one after the other, its counts written out."""


@lru_cache(maxsize=256)
def probe(kind: str, text: str, digit: float = 1.0) -> float:
    """How long the shortest text of a form is, at least (see `shortest`). Raises `UsageError` for one that takes too
    long or too much memory to read; each is tried once. One that is wrong in another way passes: whoever reads it says
    why."""
    for expression in _expressions(kind, text):
        if (length := unfolded(expression)) > MOST_UNFOLDED:
            raise UsageError(
                f"`{one_line(expression, 60)}` has {length} parts with its counts written out, over {MOST_UNFOLDED}",
                hint="lower the counts",
            )
    prelude = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})"
    call = "from localinfer.engine.grammar_probe import main; main()"
    try:
        ran = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", "-c", f"{prelude}; {call}"],
            input=json.dumps({"kind": kind, "text": text, "digit": digit, "seconds": CPU_SECONDS}).encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=WALL_SECONDS,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        ran = None
    if ran is None or ran.returncode != 0:
        raise UsageError(
            f"this form takes more than {CPU_SECONDS} s or {MEMORY_BYTES >> 20} MB to read", hint="simplify it"
        )
    return float(json.loads(ran.stdout or b"0"))


def may_explode(kind: str, text: str) -> bool:
    """Whether a form has an expression that counts far behind a repetition without an end: at each character another
    count may begin there, and all have to be followed."""
    return any(_ENDLESS.search(one) and unfolded(one) > FAR for one in _expressions(kind, text))


def _expressions(kind: str, text: str) -> list[str]:
    """The regular expressions of a form."""
    if kind == "regex":
        return [text]
    if kind == "rules":
        return [*re.findall(r"/((?:\\.|[^/\\\n])+)/", text), *_in_rules(text)]
    return _in_rules(text) if kind == "lark" else _patterns(text)


def _in_rules(text: str) -> list[str]:
    """Those of the schemas in rules, wherever such a one may begin."""
    return [one for begin in re.finditer(r"%json\s*", text) for one in _patterns(text, begin.end())]


def unfolded(expression: str) -> int:
    """How many parts a regular expression has when each `{n,m}` is written out m times; about, and never far less."""
    sizes, last, at = [0], 0, 0
    while at < len(expression):
        if count := _COUNT.match(expression, at):
            factor = max(int(number or 0) for number in count.groups())
            sizes[-1] += last * max(0, factor - 1)
            last *= max(1, factor)
            at = count.end()
            continue
        piece = _PIECE.match(expression, at)
        assert piece is not None
        at = piece.end()
        if piece[0] == "(":
            sizes.append(0)
        elif piece[0] == ")" and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] += last
        elif piece[0] not in "?*+|)":
            last = 1
            sizes[-1] += 1
    return sum(sizes)


FAR = 100
"""Parts of an expression from which on counts are far."""

_ENDLESS = re.compile(r"[*+]|\{[0-9]+,\}")
_COUNT = re.compile(r"\{([0-9]{1,9})(?:,([0-9]{0,9}))?\}")
_PIECE = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)


def _patterns(text: str, begin: int = 0) -> list[str]:
    """The regular expressions of a JSON schema that begins there."""
    try:
        left, found = [json.JSONDecoder().raw_decode(text, begin)[0]], list[str]()
    except (ValueError, RecursionError):
        return []
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value.values()
            inner = value.get("patternProperties")
            found += [str(value.get("pattern", "")), *(inner if isinstance(inner, dict) else ())]
        elif isinstance(value, list):
            left += value
    return found


def main() -> None:
    """The child."""
    from llguidance import LLTokenizer, TokenizerWrapper

    asked = json.loads(sys.stdin.buffer.read())
    tokens = LLTokenizer(TokenizerWrapper(_Bytes()))
    _bound(asked["seconds"])
    text = asked["text"]
    _read(asked["kind"], text, tokens)
    sys.stdout.write(json.dumps(_shortest(asked["kind"], text, asked["digit"])))


def _shortest(kind: str, text: str, digit: float) -> float:
    from localinfer.engine.shortest import shortest_of_schema
    from localinfer.engine.shortest_match import shortest_match
    from localinfer.engine.shortest_rules import shortest_of_rules

    try:
        if kind == "json_schema":
            return shortest_of_schema(json.loads(text), digit)
        return shortest_match(text, digit) if kind == "regex" else shortest_of_rules(text, _STARTS[kind], digit)
    except (ValueError, RecursionError):  # whoever reads it says why
        return 0


_STARTS = {"rules": "start", "lark": "answer"}


def _read(kind: str, text: str, tokens: "LLTokenizer") -> None:
    """The form, and a step in it, for what that takes."""
    from llguidance import LLMatcher

    try:
        if kind in ("lark", "rules"):  # tokens by their numbers mean nothing here
            head = "start: answer\n" if kind == "lark" else ""
            plain = LLMatcher.grammar_from_lark(head + re.sub(r"<\[[0-9]+\]>", '"x"', text))
        elif kind == "regex":
            plain = LLMatcher.grammar_from_regex(text)
        else:
            plain = LLMatcher.grammar_from_json_schema(text)
        matcher = LLMatcher(tokens, plain, log_level=0)
    except ValueError:
        return
    if not matcher.is_error():
        matcher.compute_bitmask()


def _bound(cpu_seconds: int) -> None:
    """Let the system kill this process where it takes too much; where the system cannot, the clock alone does."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


class _Bytes:
    """A vocabulary of all bytes and an end."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([one]) for one in range(256)), b"<end>")
    special_token_ids = (256,)

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text if isinstance(text, bytes) else text.encode())
