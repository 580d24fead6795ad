"""What is measured, in llama-bench's words: `pp256` reads a prompt, `tg128` generates, `@d4096` after 4096 tokens.

`tg64x8` is ours: eight sequences generate together.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from localinfer.config import in_range
from localinfer.errors import UsageError

DEFAULT_TESTS = ("pp256", "tg128")
MOST_STREAMS = 64
_NAME = re.compile(r"(pp|tg)([0-9]{1,7})(?:x([0-9]{1,2}))?(?: ?@ ?d([0-9]{1,7}))?")


@dataclass(frozen=True, slots=True)
class BenchTest:
    """Either `prompt` tokens are read, or each of `streams` sequences makes `generate` tokens, with `depth` before."""

    prompt: int
    generate: int
    depth: int = 0
    streams: int = 1

    @property
    def name(self) -> str:
        what = f"pp{self.prompt}" if self.prompt else f"tg{self.generate}"
        together = f"x{self.streams}" if self.streams > 1 else ""
        return what + together + (f"@d{self.depth}" if self.depth else "")

    @property
    def kind(self) -> str:
        """`pp` or `tg`."""
        return "pp" if self.prompt else "tg"

    @property
    def context(self) -> int:
        """Tokens of context that a sequence needs: one token begins or ends every test; of several streams the first
        may run ahead while the others begin."""
        return self.depth + self.prompt + self.generate + 2 + (2 * self.streams if self.streams > 1 else 0)


def parse_tests(names: Iterable[str]) -> list[BenchTest]:
    """The tests of `["pp256", "tg128,tg32x8@d1024"]`, in order, each once. Raises `UsageError` for anything else."""
    found: dict[str, BenchTest] = {}
    for name in (part.strip() for names_ in names for part in names_.split(",")):
        match = _NAME.fullmatch(name)
        count = int(match[2]) if match else 0
        streams = int(match[3] or 1) if match else 0
        if match is None or count == 0 or streams == 0 or (match[1] == "pp" and streams > 1):
            raise UsageError(
                f"`{name[:40]}` is not a test",
                hint="write `pp256` (read), `tg128` (generate), `tg64x8` (8 together) or `pp512@d4096` (at a depth)",
            )
        in_range("streams", streams, 1, MOST_STREAMS)
        depth = int(match[4] or 0)
        test = BenchTest(count, 0, depth) if match[1] == "pp" else BenchTest(0, count, depth, streams)
        found.setdefault(test.name, test)
    return list(found.values())


def with_streams(tests: Sequence[BenchTest], streams: Iterable[int]) -> list[BenchTest]:
    """`tests`, and each that generates one sequence at depth 0 once more for each number of `streams`."""
    found = {test.name: test for test in tests}
    for count in streams:
        in_range("parallel", count, 1, MOST_STREAMS)
        for test in tests:
            if test.generate and test.streams == 1 and test.depth == 0:
                more = replace(test, streams=count)
                found.setdefault(more.name, more)
    return list(found.values())


def context_for(tests: Iterable[BenchTest]) -> int:
    """The context to open an engine with, so that every test has room."""
    return max(test.context for test in tests)
