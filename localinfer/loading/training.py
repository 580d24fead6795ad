"""What `draft train` learns from and is judged by: the model's own text, and the step times of this machine."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from localinfer.errors import UsageError
from localinfer.events import OnProgress
from localinfer.hub.model import LocalModel

TEMPERATURE = 0.6
"""Of what the model says: between the likeliest text and what people usually have drawn."""

ROUND = 4096
"""Tokens asked for at a time, so that progress can be told."""


def training_text(
    model: LocalModel,
    files: Sequence[Path],
    left: Callable[[], float],
    *,
    seed: int,
    threads: int,
    progress: OnProgress,
) -> tuple[Any, Mapping[int, float]]:
    """Sequences of tokens, int32 [n, 512]: what `model` says in the seconds that are `left`, and `files`; and the
    seconds of its steps by their rows. What a stopped run drew is gone on with."""
    from localinfer.chats.self_calibration import CONTEXT, write_self_calibration
    from localinfer.chats.template import conversation
    from localinfer.config import EngineConfig
    from localinfer.cost.fit import context_of
    from localinfer.distill.time_plan import TOGETHER
    from localinfer.engine.drafters import key_of_model
    from localinfer.engine.opening import open_engine
    from localinfer.graph.weights import Checkpoint
    from localinfer.paths import drafters_dir
    from localinfer.quantize.calibration import calibration
    from localinfer.quantize.journal import locked

    folder = drafters_dir() / f"{key_of_model(model.path)}-words-{seed}.partial"
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    context = min(CONTEXT, context_of(Checkpoint(model.path)))
    config = EngineConfig(
        context=context, parallel=TOGETHER, kv_tokens=context * TOGETHER, threads=threads or None, draft="off"
    )
    with locked(folder):
        words, budget, wanted = folder / "words.jsonl", left(), 0
        with open_engine(model.path, config, name=model.ref, on_progress=progress) as engine:
            assert engine.info.step_timing is not None
            step_s = engine.info.step_timing.step_s
            while left() > 0:
                wanted += ROUND
                write_self_calibration(
                    engine,
                    words,
                    tokens=wanted,
                    seed=seed,
                    together=TOGETHER,
                    temperature=TEMPERATURE,
                    late=lambda: left() <= 0,
                )
                progress(f"letting {model.ref} write", min(int(1000 * (1 - left() / budget)), 1000), 1000)
            if not files and not words.exists():
                raise UsageError(
                    f"the time was over before `{model.ref}` had written anything", hint="allow more `--minutes`"
                )
            texts = [*([words] if words.exists() else []), *files]
            tokens = calibration(engine.tokenizer, conversation, 1 << 30, seed, texts)  # type: ignore[arg-type]
        shutil.rmtree(folder, ignore_errors=True)
    return tokens, step_s
