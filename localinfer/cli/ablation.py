"""`bench --ladder`: the forms of a model, made where they are missing, and the report on all variants."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from localinfer.cli.bench_history import Keep
from localinfer.cli.bundles import TariffFlags
from localinfer.cli.telling import Terminal
from localinfer.config import EngineConfig, KvBits
from localinfer.errors import NotFound, UsageError
from localinfer.hub.model import LocalModel

if TYPE_CHECKING:
    from localinfer.bench.ablation import ToPrompts
    from localinfer.bench.ablation_run import AblationPlan

FORMS = ("INT8", "INT4", "INT3")
PER_TASK = 2
"""Prompts of each task, if nothing else is asked for."""


def ablate(
    name: str,
    config: EngineConfig,
    *,
    random: str | None,
    settings: dict[str, Any],
    cost: TariffFlags,
    plot: str | None,
    seed: int,
    revision: str | None,
    offline: bool,
    json: bool,
    quiet: bool,
    keep: Keep,
) -> None:
    """Measure the variants, keep the report and show it; `settings` are fields of `AblationPlan`."""
    from localinfer.bench.ablation_report import ablation_table, draw
    from localinfer.bench.ablation_run import run_ablation
    from localinfer.cli.output import line, show_json
    from localinfer.cli.progress import Progress
    from localinfer.picture import require_picture

    picture = Path(plot).expanduser() if plot is not None else None
    if picture is not None:
        require_picture(picture)
    if random is not None:
        plan = _of_random(random, settings, quiet)
    else:
        plan = _of_model(name, settings, revision=revision, offline=offline, quiet=quiet)
    what = f"--random {random.partition(':')[0]}" if random is not None else name
    command = f"localinfer bench {what} --ladder -n {plan.most} --reps {plan.rounds}{_other_flags(plan, config, seed)}"
    with Progress(long=True, quiet=quiet) as progress:
        report = {"command": command} | run_ablation(
            plan, config, tariff=cost.tariff(), seed=seed, on_progress=progress
        )
    keep(report)
    show_json(report) if json else line(ablation_table(report).rstrip("\n"))
    if picture is not None:
        draw(report, picture)


def _other_flags(plan: "AblationPlan", config: EngineConfig, seed: int) -> str:
    """What else stood in the command and changes figures, as it would be typed."""
    given = {
        "--bits": plan.base[3:] if plan.base != "INT4" else None,
        "--kv-bits": plan.kv_bits if plan.kv_bits != 8 else None,
        "-np": plan.streams if plan.streams != 8 else None,
        "-t": config.threads,
        "--seed": seed or None,
        "--replay": plan.recorded.name if plan.recorded else None,
    }
    return "".join(f" {flag} {value}" for flag, value in given.items() if value is not None)


def _of_model(
    name: str, settings: dict[str, Any], *, revision: str | None, offline: bool, quiet: bool
) -> "AblationPlan":
    """The original and its forms; those that are missing are made now, as `quantize` would make them."""
    from localinfer.bench.ablation_run import AblationPlan
    from localinfer.cli.evaluate import original_of
    from localinfer.cli.output import note
    from localinfer.hub.reference import parse
    from localinfer.hub.resolve import resolve
    from localinfer.loading.making import Limit, make_small

    reference = parse(name, revision=revision)
    plain = name if reference.path else reference.name  # without the form: all of them are measured
    source = original_of(plain, revision=reference.revision, offline=offline, quiet=quiet)
    forms: dict[str, Path] = {"BF16": source.path}
    for form in FORMS:
        try:
            made = resolve(f"{source.name}:{form}", offline=True)
        except NotFound:
            if not quiet:
                note(f"`{source.name}:{form}` is not here; making it once")
            make_small(source, int(form[3:]), limit=Limit(report=False), tell=Terminal(quiet))
            made = resolve(f"{source.name}:{form}", offline=True)
        forms[form] = made.path
    return AblationPlan(name=source.name, revision=source.revision, forms=forms, to_prompts=_prompts(), **settings)


def _of_random(word: str, settings: dict[str, Any], quiet: bool) -> "AblationPlan":
    """Random weights of a shape in all forms."""
    from localinfer.bench.ablation_run import AblationPlan
    from localinfer.cli.random_weights import random_weights

    shape = word.partition(":")[0]
    made: dict[str, LocalModel] = {
        form: random_weights(f"{shape}:{form}", None, None, None, quiet=quiet) for form in ("BF16", *FORMS)
    }
    forms = {form: model.path for form, model in made.items()}
    return AblationPlan(name=f"random/{shape}", revision=None, forms=forms, **settings)


def _prompts() -> "ToPrompts":
    from localinfer.bench.prompts import TASKS, bundled_prompts
    from localinfer.chats.chat import Chat
    from localinfer.engine.protocol import Engine

    def to_prompts(engine: Engine) -> list[tuple[int, ...]]:
        raw = engine.chat_template is None
        return [tuple(Chat(engine, raw=raw).tokens_of(one.prompt)) for one in bundled_prompts(TASKS, PER_TASK)]

    return to_prompts


def base_of(bits: str | None) -> str:
    """The form that the upper variants stand on. Raises `UsageError` for 16 bits, which the first has."""
    if bits == "16":
        raise UsageError("the first variant has 16 bits already", hint="give 8, 4 or 3")
    return f"INT{bits or 4}"


def kv_of(bits: str) -> KvBits:
    """The bits of the quantized cache. Raises `UsageError` for one that is not quantized."""
    if bits == "16":
        raise UsageError("`--kv-bits 16` quantizes no cache", hint="give 8 or 4: it is a variant of its own")
    return 8 if bits == "8" else 4
