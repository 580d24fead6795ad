"""What every tiny model computes, as hashes: `python -m tests.engine.output_hashes [--write] [--seed N]
[--every N]`.

A case is a model, the width of its weights and that of its cache. Its hash is over the tokens of three answers and over
all bits of the logits behind them. `output_hashes.json` keeps one hash a case. Each kernel set of this machine computes
each case once, by threads, chunks, drafters and company that the seed chooses; all must give the hash that is kept.
Leaves with 1, naming the case and the way, if one does not. `--write` computes the plainest way and keeps its hashes.
Run where a wheel is installed and `localinfer/` is not beside `tests/`, it is the wheel that computes.
"""

import argparse
import hashlib
import json
import math
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest

from localinfer import native
from localinfer.config import SamplingParams
from localinfer.graph import kv_bits as four_bits
from tests.engine.running import Eager, make_prompts, open_tiny, rows_of, run_all
from tests.engine.test_equality_sweep import drafters
from tests.graph.packed import quantized
from tests.graph.variants import VARIANTS, make_variant
from tests.tiny import DISTINCT, RECURRENT

HASHES = Path(__file__).with_name("output_hashes.json")
WIDTHS = {"BF16": 16, "INT8": 8, "INT4": 4, "INT3": 3}
KV_BITS: tuple[Literal[4, 8, 16], ...] = (4, 8, 16)
CONTEXT = 352
"""More than one KV split, which has 256 tokens."""


@dataclass(frozen=True, order=True)
class Case:
    """A model of `VARIANTS`, how it is stored and what its cache keeps."""

    model: str
    width: str
    kv_bits: Literal[4, 8, 16]

    def __str__(self) -> str:
        return f"{self.model} {self.width} kv{self.kv_bits}"


@dataclass(frozen=True)
class Way:
    """How a case is computed: none of this may change a bit."""

    isa: str
    threads: int
    chunk: int
    parallel: int
    draft: str
    reuse: bool


RECURRENT_LACKS = ("model", "all")
"""Drafters that models with recurrent layers cannot have."""

PLAINEST = Way("scalar", threads=1, chunk=CONTEXT, parallel=1, draft="off", reuse=False)


def all_cases() -> list[Case]:
    """Each family in all widths; every other variant once, by turns of width and cache."""
    found = [Case(name, width, bits) for name in DISTINCT for width in WIDTHS for bits in KV_BITS]
    for i, name in enumerate(name for name in VARIANTS if name not in DISTINCT):
        bits = KV_BITS[i % 3] if "head-dim" not in name else 8  # 4 bits are for heads of a multiple of 32
        found.append(Case(name, list(WIDTHS)[i % 4], bits))
    return found


def some_way(case: Case, isa: str, seed: int) -> Way:
    """A way that depends on the case, the kernel set and the seed alone."""
    rng = random.Random(f"{case} {isa} {seed}")
    drafts = ("off", "suffix", "lookup", "early", "oracle", "model", "all")
    draft = rng.choice([one for one in drafts if not case.model.startswith(RECURRENT) or one not in RECURRENT_LACKS])
    return Way(
        isa, rng.choice((1, 2)), rng.choice((7, 32, 100, CONTEXT)), rng.choice((1, 3)), draft, rng.random() < 0.5
    )


PROMPTS = [make_prompts(1, seed=6)[0] * 3, make_prompts(3, seed=7)[2], make_prompts(4, seed=8)[3][:58] * 5]
"""3, 33 and 290 tokens; the last repeats itself."""
SAMPLINGS = [
    SamplingParams(temperature=0.9, top_k=40, repeat_penalty=1.3, seed=11, max_tokens=20, ignore_eos=True),
    SamplingParams(temperature=0, max_tokens=20, ignore_eos=True),
    SamplingParams(temperature=0.5, top_k=0, top_p=0.9, seed=3, max_tokens=20, ignore_eos=True),
]


class Hasher:
    """Makes the models, each once, in `folder`, and computes cases."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.model: Callable[[str, str], Path] = cache(self._model)
        self._truths: dict[Case, list[list[int]]] = {}

    def _model(self, name: str, width: str) -> Path:
        if width == "BF16":
            more = {} if "head_dim" in VARIANTS[name] else {"head_dim": 32}
            return make_variant(name, self._folder / f"{name}-BF16", **more)
        return quantized(self.model(name, "BF16"), self._folder / f"{name}-{width}", WIDTHS[width], 32)

    def hash(self, case: Case, way: Way) -> str:
        """The case's hash, computed this way."""
        if way.draft in ("oracle", "all") and case not in self._truths:
            self.hash(case, PLAINEST)
        path, digest, truths = self.model(case.model, case.width), hashlib.sha256(), []
        config: dict[str, Any] = {"isa": way.isa, "threads": way.threads, "parallel": way.parallel}
        with open_tiny(
            path, reuse=way.reuse, context=CONTEXT, kv_bits=case.kv_bits, prefill_chunk=way.chunk, **config
        ) as engine:
            if way.draft != "off":
                known = self._truths.get(case, [])
                engine.speculator = Eager(drafters(engine, way.draft, path, way.parallel, known))
            for sampling in SAMPLINGS:
                for prompt, said in zip(PROMPTS, run_all(engine, PROMPTS, sampling), strict=True):
                    truths.append([*prompt, *said.token_ids])
                    for length in range(len(prompt), len(truths[-1])):
                        digest.update(rows_of(engine)[tuple(truths[-1][:length])])
                    digest.update(repr((said.token_ids, said.text)).encode())
        self._truths[case] = truths
        return digest.hexdigest()[:16]


@contextmanager
def every_layer_bears_4_bits() -> Iterator[None]:
    """Else layers of random weights would keep 8."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(four_bits, "LIMIT", math.inf)
        yield


def known_hashes() -> dict[str, str]:
    known: dict[str, str] = json.loads(HASHES.read_text(encoding="utf-8"))
    return known


def differences(hasher: Hasher, cases: Sequence[Case], isas: Sequence[str], seed: int) -> list[str]:
    """One line for each case and way whose hash is not the one that is kept."""
    expected = known_hashes()
    wrong = []
    with every_layer_bears_4_bits():
        for case in cases:
            for way in (some_way(case, isa, seed) for isa in isas):
                if (seen := hasher.hash(case, way)) != expected.get(str(case)):
                    wrong.append(f"{case}: {seen}, not {expected.get(str(case))}, by {way}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare what is computed with the hashes that are kept.")
    parser.add_argument("--write", action="store_true", help="keep the hashes of the plainest way")
    parser.add_argument("--seed", type=int, default=0, help="choose other ways")
    parser.add_argument("--every", type=int, default=1, help="only each Nth case")
    asked = parser.parse_args()
    if asked.write and asked.every > 1:
        parser.error("--write keeps all cases: leave --every out")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCALINFER_HOME", f"{folder}/home")
        hasher, cases = Hasher(Path(folder)), all_cases()[:: asked.every]
        if asked.write:
            with every_layer_bears_4_bits():
                found = {str(case): hasher.hash(case, PLAINEST) for case in cases}
            HASHES.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        wrong = differences(hasher, cases, native.supported_isas(), asked.seed)
    print(*wrong, f"{len(cases)} cases, {len(wrong)} differences", sep="\n")  # noqa: T201
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
