"""Panes opened and closed by the hundred while answers are written: nothing stays behind.

`STORM_PANES=1000` does it a thousand times, in about eight minutes.
"""

import gc
import os
import random
import resource
import threading
from pathlib import Path

from textual.pilot import Pilot

from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.engine import StepEngine
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Engine
from localinfer.tui.app import ChatApp
from localinfer.tui.workers import LoadProgress
from tests.tiny import make_checkpoint
from tests.tui.conftest import quiet_app, settle

PANES, WARM = int(os.environ.get("STORM_PANES", "80")), 30
MEMORY_MB = 60
"""Growth allowed from the thirtieth pane to the last; a widget that stayed would take more."""


async def one_round(app: ChatApp, pilot: Pilot[None], rng: random.Random) -> int:
    """Some panes come, most of them ask something, and all but the first go, answers or not; gives how many came."""
    came = 0
    for _ in range(rng.randint(1, 5)):
        new = await app.chats.split(rng.choice(app.chats.panes), across=rng.random() < 0.5)
        if new is None:
            break
        came += 1
        if rng.random() < 0.8:
            await new.send(f"question {rng.random()}")
    if rng.random() < 0.5 and not app.chats.panes[0].busy:
        await app.chats.panes[0].send("the first one goes on")
    await pilot.pause(rng.choice([0, 0, 0.02]))
    while len(app.chats.panes) > 1:
        await app.chats.close(rng.choice(app.chats.panes[1:]))
    return came


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


async def test_panes_come_and_go(tmp_path: Path, store_path: Path) -> None:
    model = make_checkpoint(tmp_path / "model")
    engines: list[StepEngine] = []

    def opened(progress: LoadProgress) -> Engine:
        engine = open_engine(model, EngineConfig(context=256, parallel=16, threads=1), on_progress=progress)
        assert isinstance(engine, StepEngine)
        engines.append(engine)
        return engine

    sampling = SamplingParams(max_tokens=40, ignore_eos=True)
    app = quiet_app(opened, store_path, sampling=sampling)
    rng, came = random.Random(1), 0
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        threads, memory = 0, 0.0
        while came < PANES:
            before = came
            came += await one_round(app, pilot, rng)
            if before < WARM <= came:
                await settle(pilot)
                gc.collect()
                threads, memory = threading.active_count(), resident_mb()
        await app.chats.panes[0].transcript.clear()
        await settle(pilot)
        gc.collect()
        assert len(app.chats.panes) == 1
        assert len(app.query("ChatPane")) == 1
        assert threading.active_count() <= threads + 1
        assert resident_mb() - memory < MEMORY_MB
        load = engines[0].load()
        assert (load.running, load.waiting, load.used) == (0, 0, 0)
        assert engines[0].scheduler.idle
        assert not engines[0]._replies
        assert not app.chats.engines.open[1:]
    engines[0].close()
