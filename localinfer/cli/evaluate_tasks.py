"""`eval --tasks`: how much a smaller model still gets right."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localinfer.cli.telling import Terminal
from localinfer.config import EngineConfig, KvBits
from localinfer.hub.model import LocalModel

if TYPE_CHECKING:
    from localinfer.tasks.run import Taken


def chosen_tasks(words: list[str]) -> tuple[str, ...]:
    """What `--tasks` names. Raises `UsageError`, and `NotSupported` for one that cannot be judged on this machine."""
    from localinfer.tasks.run import parse_tasks, require_tasks

    tasks = parse_tasks(words)
    require_tasks(tasks)
    return tasks


@dataclass(frozen=True, slots=True)
class Engines:
    """How each model is opened, and what it is asked."""

    tasks: Sequence[str]
    items: int
    kv_bits: KvBits
    threads: int | None
    backend: str
    tell: Terminal

    def take(self, model: LocalModel, kv_bits: KvBits) -> "Taken":
        """All items, answered by `model`."""
        from localinfer.loading.opening import open_model
        from localinfer.tasks.run import PARALLEL, take

        config = EngineConfig(parallel=PARALLEL, threads=self.threads, kv_bits=kv_bits, draft="off")
        opened = open_model(model, config, backend=self.backend, tell=self.tell)
        with opened.engine as engine, self.tell.progress(long=True) as progress:

            def on_progress(what: str, done: int, total: int) -> None:
                progress(f"{model.ref}: {what}", done, total)

            return take(engine, self.tasks, self.items, on_progress=on_progress)


def evaluate_tasks(engines: Engines, models: Sequence[LocalModel], reference: LocalModel | None, *, json: bool) -> None:
    """Let the models answer one after another, the reference first, with a 16-bit cache."""
    from localinfer.cli.output import line, show_json
    from localinfer.tasks.report import table, to_json
    from localinfer.tasks.scores import score

    before = engines.take(reference, 16) if reference is not None else None
    name, bits = reference.ref if reference is not None else None, engines.kv_bits
    scores = [score(model.ref, engines.take(model, bits), bits, name, before) for model in models]
    if json:
        show_json(to_json(scores))
    else:
        line(table(scores).rstrip("\n"))
