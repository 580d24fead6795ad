"""What `draft train` learns from and is judged by: the model's own text, and the step times of this machine."""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localinfer.hub.model import LocalModel

if TYPE_CHECKING:
    from localinfer.cli.progress import Progress

TEMPERATURE = 0.6
"""Of what the model says: between the likeliest text and what people usually have drawn."""

TOGETHER = 16
ROUND = 4096
"""Tokens asked for at a time, so that the time is kept."""


def own_text(
    model: LocalModel, files: Sequence[Path], seconds: float, *, seed: int, threads: int, progress: "Progress"
) -> Any:
    """Sequences of tokens, int32 [n, 512]: what `model` says in about so many seconds, and `files`.

    What a stopped run drew is gone on with."""
    from localinfer.chats.own_words import CONTEXT, write_own_words
    from localinfer.chats.template import conversation
    from localinfer.config import EngineConfig
    from localinfer.cost.fit import estimate
    from localinfer.engine.drafters import key_of_model
    from localinfer.engine.opening import open_engine
    from localinfer.paths import drafters_dir
    from localinfer.quantize.calibration import calibration
    from localinfer.quantize.journal import locked

    folder = drafters_dir() / f"{key_of_model(model.path)}-words-{seed}.partial"
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    context = min(CONTEXT, estimate(model.path).context)
    config = EngineConfig(
        context=context, parallel=TOGETHER, kv_tokens=context * TOGETHER, threads=threads or None, draft="off"
    )
    with locked(folder):
        words = folder / "words.jsonl"
        with open_engine(model.path, config, name=model.ref, on_progress=progress) as engine:
            until, wanted = time.monotonic() + seconds, 0
            while time.monotonic() < until or wanted == 0:
                wanted += ROUND
                write_own_words(engine, words, tokens=wanted, seed=seed, together=TOGETHER, temperature=TEMPERATURE)
                spent = seconds - (until - time.monotonic())
                progress(f"letting {model.ref} speak", min(int(1000 * spent / seconds), 1000), 1000)
            tokens = calibration(engine.tokenizer, conversation, 1 << 30, seed, [words, *files])  # type: ignore[arg-type]
        shutil.rmtree(folder, ignore_errors=True)
    return tokens


def step_times(model: LocalModel, threads: int) -> Mapping[int, float]:
    """Seconds of a step of the model by its rows, measured now if they are not known."""
    from localinfer.config import EngineConfig
    from localinfer.engine.opening import open_engine

    with open_engine(model.path, EngineConfig(threads=threads or None, draft="off"), name=model.ref) as engine:
        assert engine.info.calibration is not None
        return engine.info.calibration.step_s
