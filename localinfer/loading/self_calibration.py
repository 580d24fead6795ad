"""`--calib self`: the text that the original says by itself, drawn once and kept until the small model is made."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from localinfer.errors import UsageError
from localinfer.events import OnProgress
from localinfer.hub.model import LocalModel
from localinfer.loading.fitting import check_fit

if TYPE_CHECKING:
    from localinfer.quantize import CalibrationText, Earlier

SELF = "self"


def calibration_files(
    source: LocalModel,
    dest: Path,
    calib: Sequence[str],
    text: "CalibrationText",
    *,
    refine: bool,
    threads: int,
    earlier: "Earlier",
    left: Callable[[], float],
    progress: OnProgress,
    say: Callable[[str], None],
) -> tuple[Path, ...]:
    """The files that `calib` names; for `self` one that holds what `source` says, to make and `refine` `dest` with, as
    much as it says in the seconds that are `left`. `say` is told where its experts are, if not in memory."""
    if SELF not in calib:
        return tuple(Path(name).expanduser() for name in calib)
    from localinfer.quantize.time_plan import MORE_TEXT

    tokens = text.tokens * (MORE_TEXT if refine else 1)
    words = _drawn(source, dest, tokens, text.seed, threads, earlier, left, progress, say)
    return tuple(words if name == SELF else Path(name).expanduser() for name in calib)


def forget_words(dest: Path) -> None:
    """Delete what was drawn for `dest`."""
    shutil.rmtree(_folder(dest), ignore_errors=True)


def _folder(dest: Path) -> Path:
    """Named so that `cache prune` finds it when it is left."""
    return dest.with_name(f"{dest.name}-words.partial")


def _drawn(
    source: LocalModel,
    dest: Path,
    tokens: int,
    seed: int,
    threads: int,
    earlier: "Earlier",
    left: Callable[[], float],
    progress: OnProgress,
    say: Callable[[str], None],
) -> Path:
    """What a stopped run has drawn is gone on with. Raises `Changed` for one of another source, before a word, and
    `UsageError` where the time ends before there is enough to calibrate on."""
    from localinfer.chats.self_calibration import CONTEXT, TOGETHER, write_self_calibration
    from localinfer.config import EngineConfig
    from localinfer.cost.fit import context_of
    from localinfer.engine.opening import open_engine
    from localinfer.graph.weights import Checkpoint
    from localinfer.quantize.estimates import LEAST_TOKENS
    from localinfer.quantize.journal import locked, require_same_source
    from localinfer.quantize.origin import Origin

    origin = Origin(source.path)
    if earlier != "fresh":
        require_same_source(dest.with_name(dest.name + ".partial"), origin.said)
    context = min(CONTEXT, context_of(Checkpoint(source.path)))
    config = EngineConfig(
        context=context, parallel=TOGETHER, kv_tokens=context * TOGETHER, kv_bits=16, threads=threads or None
    )
    key = hashlib.sha256(repr((sorted(origin.said["files"].items()), seed)).encode()).hexdigest()
    with locked(_folder(dest)):
        fitted = check_fit(source, config)
        config = fitted.config
        if fitted.note:
            say(fitted.note)
        file = _folder(dest) / f"{key[:16]}.jsonl"
        with open_engine(source.path, config, name=source.ref, on_progress=progress) as engine:
            said = write_self_calibration(
                engine,
                file,
                tokens=tokens,
                seed=seed,
                late=lambda: left() <= 0,
                on_progress=lambda done, total: progress(f"letting {source.ref} speak", done, total),
            )
    if said < min(tokens, LEAST_TOKENS):
        raise UsageError(
            f"`{source.ref}` said {said} tokens in the time, and {LEAST_TOKENS} are needed to calibrate on",
            hint="allow more time, or leave out `--calib self`",
        )
    return file
