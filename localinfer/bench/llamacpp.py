"""llama.cpp at its best on this machine: every sensible setting is tried, for prompts and for generation apart."""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from localinfer.bench.against import Runner
from localinfer.bench.measure import Clock, measure
from localinfer.bench.plan import BenchTest
from localinfer.bench.rows import Contender
from localinfer.config import EngineConfig, KvBits
from localinfer.cost.roofline import gguf_traffic
from localinfer.engine.llamacpp import open_llamacpp
from localinfer.errors import DoesNotFit

_TRIES = 4


@dataclass(frozen=True, slots=True)
class Settings:
    """How llama.cpp may be set up. Weights are repacked for the processor either way, as it does by itself."""

    kv_bits: KvBits
    flash_attention: bool

    @property
    def words(self) -> str:
        attention = "flash attention" if self.flash_attention else "no flash attention"
        return (
            f"{'f16' if self.kv_bits == 16 else 'q8_0'} KV, {attention}, repacked weights: the fastest of its settings"
        )


ALL = (Settings(16, True), Settings(16, False), Settings(8, True))


@contextmanager
def best_llamacpp(
    path: Path, config: EngineConfig, kinds: Iterable[str], *, seed: int = 0, clock: Clock = time.perf_counter
) -> Iterator[dict[str, Runner]]:
    """llama.cpp on the GGUF file `path`, at our context and threads, at its best for each of `kinds` (`pp`, `tg`).

    Settings are tried one after the other, each in its own engine, so that memory holds one at a time. Raises
    `NotSupported` when llama-cpp-python is not installed or does not know the model.
    """
    speeds = {settings: _pilot(path, config, settings, kinds, seed, clock) for settings in ALL}
    with ExitStack() as stack:
        opened: dict[Settings, Runner] = {}
        found = {}
        for kind in kinds:
            best = max(ALL, key=lambda settings: speeds[settings].get(kind, 0.0))
            if best not in opened:
                opened[best] = stack.enter_context(_open(path, config, best))
            found[kind] = opened[best]
        yield found


@contextmanager
def _open(path: Path, config: EngineConfig, settings: Settings) -> Iterator[Runner]:
    ours = replace(config, kv_bits=settings.kv_bits, draft="off")
    with open_llamacpp(path, ours, name=path.name, flash_attention=settings.flash_attention) as engine:
        yield Runner(engine, Contender(engine.info, "off", gguf_traffic(path, settings.kv_bits), settings.words))


def _pilot(
    path: Path, config: EngineConfig, settings: Settings, kinds: Iterable[str], seed: int, clock: Clock
) -> dict[str, float]:
    """The best speed of each kind of test, after one try to warm up; nothing for settings the model cannot have."""
    try:
        with _open(path, config, settings) as runner:
            return {kind: max(_speeds(runner, kind, seed, clock)) for kind in kinds}
    except DoesNotFit:
        if settings == ALL[0]:
            raise
        return {}  # 8-bit keys and values exist for head sizes of whole 32s only


def _speeds(runner: Runner, kind: str, seed: int, clock: Clock) -> list[float]:
    """A short test of this kind, as far as the context has room for it."""
    room = runner.engine.context_size - BenchTest(0, 0).context
    test = BenchTest(min(128, room), 0) if kind == "pp" else BenchTest(0, min(16, room))
    tries = [measure(runner.engine, test, i, seed, clock, None).tok_s for i in range(_TRIES)]
    return tries[1:]
