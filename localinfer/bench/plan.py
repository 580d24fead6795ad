"""What is measured, in llama-bench's words: `pp256` reads a prompt, `tg128` generates, `@d4096` after 4096 tokens."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from localinfer.errors import UsageError

DEFAULT_TESTS = ("pp256", "tg128")
_NAME = re.compile(r"(pp|tg)([0-9]{1,7})(?: ?@ ?d([0-9]{1,7}))?")


@dataclass(frozen=True, slots=True)
class BenchTest:
    """Either `prompt` tokens are read, or `generate` tokens are made, with `depth` tokens in the cache before."""

    prompt: int
    generate: int
    depth: int = 0

    @property
    def name(self) -> str:
        what = f"pp{self.prompt}" if self.prompt else f"tg{self.generate}"
        return f"{what}@d{self.depth}" if self.depth else what

    @property
    def kind(self) -> str:
        """`pp` or `tg`."""
        return "pp" if self.prompt else "tg"

    @property
    def context(self) -> int:
        """Tokens of context that it needs: one token begins or ends every test."""
        return self.depth + self.prompt + self.generate + 2


def parse_tests(names: Iterable[str]) -> list[BenchTest]:
    """The tests of `["pp256", "tg128,tg32@d1024"]`, in order, each once. Raises `UsageError` for anything else."""
    found: dict[str, BenchTest] = {}
    for name in (part.strip() for names_ in names for part in names_.split(",")):
        match = _NAME.fullmatch(name)
        count = int(match[2]) if match else 0
        if match is None or count == 0:
            raise UsageError(
                f"`{name[:40]}` is not a test",
                hint="write `pp256` (read), `tg128` (generate) or `pp512@d4096` (at a depth)",
            )
        depth = int(match[3] or 0)
        test = BenchTest(count, 0, depth) if match[1] == "pp" else BenchTest(0, count, depth)
        found.setdefault(test.name, test)
    return list(found.values())


def context_for(tests: Iterable[BenchTest]) -> int:
    """The context to open an engine with, so that every test has room."""
    return max(test.context for test in tests)
