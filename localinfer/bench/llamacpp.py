"""llama.cpp, or ik_llama.cpp, at its best on this machine: every sensible setting is tried, for prompts and for
generation apart.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

from localinfer.bench.against import Runner
from localinfer.bench.measure import Clock, measure
from localinfer.bench.plan import BenchTest
from localinfer.bench.rows import Contender
from localinfer.config import EngineConfig, KvBits
from localinfer.cost.roofline import gguf_traffic
from localinfer.engine.ik_llamacpp import IkLlama
from localinfer.engine.llamacpp import open_llamacpp
from localinfer.engine.llamacpp_library import Llama
from localinfer.errors import DoesNotFit
from localinfer.formats.gguf import GgufFile

_TRIES = 4

LIBRARIES: dict[str, type[Llama]] = {library.backend: library for library in (Llama, IkLlama)}
"""Whom `--against` may name."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How llama.cpp may be set up. Weights are repacked for the processor either way, as it does by itself."""

    kv_bits: KvBits
    flash_attention: bool
    one_cache: bool = False
    """Several sequences in one cache, or in one each."""

    @property
    def words(self) -> str:
        attention = "flash attention" if self.flash_attention else "no flash attention"
        cache = f"{'f16' if self.kv_bits == 16 else 'q8_0'} KV{' in one cache' if self.one_cache else ''}"
        return f"{cache}, {attention}, repacked weights: the fastest of its settings"


ALL = (Settings(16, True), Settings(16, False), Settings(8, True))
FOR_STREAMS = (*ALL, *(replace(settings, one_cache=True) for settings in ALL))

ROWS = 512
"""Prompt tokens in one step: llama.cpp's own default, which suits it better than a smaller number."""


@contextmanager
def best_llamacpp(
    path: Path,
    config: EngineConfig,
    kinds: Iterable[str],
    *,
    library: str = "llamacpp",
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> Iterator[dict[str, Runner]]:
    """One of `LIBRARIES` on the GGUF file `path`, at our context and threads, at its best for each of `kinds` (`pp`,
    `tg`).

    A `tg` is one of `config.parallel` sequences together.

    Settings are tried one after the other, each in its own engine, so that memory holds one at a time. Raises
    `NotSupported` when its package is not installed or does not know the model.
    """
    chosen = LIBRARIES[library]
    every = FOR_STREAMS if config.parallel > 1 and chosen is Llama else ALL  # ik_llama.cpp has one cache for all
    speeds = {settings: _pilot(path, config, settings, kinds, chosen, seed, clock) for settings in every}
    with ExitStack() as stack:
        opened: dict[Settings, Runner] = {}
        found = {}
        for kind in kinds:
            best = max(every, key=lambda settings: speeds[settings].get(kind, 0.0))
            if best not in opened:
                opened[best] = stack.enter_context(_open(path, config, best, chosen))
            found[kind] = opened[best]
        yield found


@contextmanager
def _open(path: Path, config: EngineConfig, settings: Settings, library: type[Llama]) -> Iterator[Runner]:
    ours = replace(config, kv_bits=settings.kv_bits, draft="off", prefill_chunk=max(ROWS, config.prefill_chunk))
    started = time.perf_counter()
    with open_llamacpp(
        path,
        ours,
        name=path.name,
        flash_attention=settings.flash_attention,
        one_cache=settings.one_cache,
        library=library,
    ) as engine:
        yield Runner(
            engine,
            Contender(
                engine.info,
                "off",
                gguf_traffic(path, settings.kv_bits),
                settings.words,
                8 * engine.info.weight_bytes / gguf_parameters(path),
                time.perf_counter() - started,
            ),
        )


def gguf_parameters(path: Path) -> int:
    """How many numbers the file's tensors hold."""
    return sum(prod(tensor.shape) for tensor in GgufFile(path).tensors.values())


def _pilot(
    path: Path,
    config: EngineConfig,
    settings: Settings,
    kinds: Iterable[str],
    library: type[Llama],
    seed: int,
    clock: Clock,
) -> dict[str, float]:
    """The best speed of each kind of test, after one try to warm up; nothing for settings the model cannot have."""
    try:
        with _open(path, config, settings, library) as runner:
            return {kind: max(_speeds(runner, kind, config.parallel, seed, clock)) for kind in kinds}
    except DoesNotFit:
        if settings == ALL[0]:
            raise
        return {}  # 8-bit keys and values exist for head sizes of whole 32s only


def _speeds(runner: Runner, kind: str, parallel: int, seed: int, clock: Clock) -> list[float]:
    """A short test of this kind, as far as the context has room for it."""
    streams = parallel if kind == "tg" else 1
    room = runner.engine.context_size - BenchTest(0, 0, streams=streams).context
    test = BenchTest(min(128, room), 0) if kind == "pp" else BenchTest(0, min(16, room), streams=streams)
    tries = [measure(runner.engine, test, i, seed, clock, None).tok_s for i in range(_TRIES)]
    return tries[1:]
