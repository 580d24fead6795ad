"""Flags that several commands share, as plain frozen values with what they mean to the rest of the program."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from inspect import Parameter
from secrets import randbits
from typing import TYPE_CHECKING, Any, TypedDict, cast, get_type_hints

from localinfer.cli import options as o
from localinfer.config import EngineConfig, KvBits, SamplingParams, bias_of
from localinfer.cost.prices import Tariff
from localinfer.errors import UsageError

if TYPE_CHECKING:
    from localinfer.engine.form import Grammar
    from localinfer.hub.model import LocalModel
    from localinfer.loading.opening import Opened
    from localinfer.loading.tell import Tell


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFlags:
    """How the engine runs."""

    ctx_size: o.CtxSize
    threads: o.Threads
    kv_bits: o.KvBits
    backend: o.Backend
    draft: o.Draft
    draft_tokens: o.DraftTokens
    prefill_chunk: o.PrefillChunk
    kv_tokens: o.KvTokens
    latency_goal: o.LatencyGoal
    experts: o.Experts

    def config(
        self, *, remember: bool = False, kv_disk: float = 0.0, draft: str | None = None, parallel: int = 1
    ) -> EngineConfig:
        """The same as the engine wants it; with `draft` instead of the flag's word. Without `remember`, nothing of the
        texts is left on disk."""
        from localinfer.cli.drafts import with_draft

        config = EngineConfig(
            context=self.ctx_size,
            parallel=parallel,
            threads=self.threads,
            kv_bits=cast(KvBits, int(self.kv_bits)),
            prefill_chunk=self.prefill_chunk,
            kv_tokens=self.kv_tokens,
            latency_goal_ms=self.latency_goal,
            experts=self.experts,
            draft_tokens=self.draft_tokens,
            remember=remember,
            kv_disk_gb=kv_disk if remember else 0.0,
        )
        return with_draft(config, draft or self.draft)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceFlags:
    """What an answer leaves behind, and whether a server may give it."""

    no_remember: o.NoRemember
    kv_disk: o.KvDisk
    no_server: o.NoServer

    def config(self, engine: EngineFlags, parallel: int = 1) -> EngineConfig:
        """Of an engine of our own."""
        return engine.config(remember=not self.no_remember, kv_disk=self.kv_disk, parallel=parallel)

    @property
    def way(self) -> "Way":
        """How to connect to a server."""
        return {"server": not self.no_server, "private": self.no_remember or not self.kv_disk}


class Way(TypedDict):
    """The same words as those of `connect_or_open`."""

    server: bool
    private: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingFlags:
    """How the next token is chosen, and when to stop."""

    max_tokens: o.MaxTokens
    temp: o.Temp
    top_k: o.TopK
    top_p: o.TopP
    min_p: o.MinP
    repeat_penalty: o.RepeatPenalty
    presence_penalty: o.PresencePenalty
    frequency_penalty: o.FrequencyPenalty
    dry_multiplier: o.DryMultiplier
    dry_base: o.DryBase
    dry_allowed_length: o.DryAllowedLength
    top_n_sigma: o.TopNSigma
    typical_p: o.TypicalP
    xtc_probability: o.XtcProbability
    xtc_threshold: o.XtcThreshold
    logit_bias: o.LogitBias
    seed: o.Seed
    stop: o.Stop

    def over(self, advised: SamplingParams) -> SamplingParams:
        """What the model's makers advise, with what the person chose over it."""
        given: dict[str, Any] = {"temperature": self.temp} | {
            one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("temp", "stop", "logit_bias")
        }
        given = {name: value for name, value in given.items() if value is not None}
        if self.logit_bias:
            given["logit_bias"] = tuple(map(bias_of, self.logit_bias))
        return replace(advised, **given, stop=(*advised.stop, *self.stop))

    def given(self) -> tuple[str, ...]:
        """The fields of `SamplingParams` that the person chose."""
        chosen = [one.name for one in fields(self) if getattr(self, one.name) not in (None, (), [])]
        return tuple("temperature" if name == "temp" else name for name in chosen)

    def drawn(self, advised: SamplingParams) -> SamplingParams:
        """The same, with a seed that is drawn where none was given and one matters."""
        found = self.over(advised)
        return replace(found, seed=randbits(32)) if self.draws(advised) else found

    def draws(self, advised: SamplingParams) -> bool:
        """Whether `drawn` draws a seed."""
        return self.seed is None and bool(self.over(advised).temperature)


@dataclass(frozen=True, slots=True, kw_only=True)
class WhereFlags:
    """Where a model comes from, for texts of which nothing is kept."""

    adapter: o.Adapter
    no_server: o.NoServer
    revision: o.Revision
    offline: o.Offline

    def found(self, ref: str, tell: "Tell") -> "LocalModel":
        """The model `ref`, adapters in it."""
        from localinfer.loading.adapting import adapted
        from localinfer.loading.opening import find

        found = find(ref, revision=self.revision, offline=self.offline, tell=tell)
        return adapted(found, self.adapter, tell=tell)

    def opened(self, found: "LocalModel", engine: EngineFlags, parallel: int, tell: "Tell") -> "Opened":
        """The model, of a server or opened here."""
        from localinfer.loading.connecting import connect_or_open

        config, way = engine.config(parallel=parallel), Way(server=not self.no_server, private=True)
        return connect_or_open(found, config, backend=engine.backend, **way, tell=tell)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointFlags:
    """Servers that are to answer."""

    endpoint: o.Endpoint
    endpoint_model: o.EndpointModel
    endpoint_key_env: o.EndpointKeyEnv
    endpoint_timeout: o.EndpointTimeout

    def timeout(self) -> float:
        """Seconds. Raises `UsageError`."""
        from localinfer.errors import seconds_of

        return seconds_of(self.endpoint_timeout, "endpoint-timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeveralFlags:
    """How many answers to one prompt."""

    samples: o.Samples
    best_of: o.BestOf

    def counts(self, *, alone: bool) -> tuple[int, int]:
        """How many are shown, and how many are written. Raises `UsageError`; `alone`: only one can be."""
        shown = self.samples or 1
        written = self.best_of or shown
        if written < shown:
            raise UsageError(f"the best {shown} of {written} answers cannot be shown", hint="raise `--best-of`")
        if alone and written > 1:
            raise UsageError(
                "several answers go with a prompt that is given, and not with `--show-drafts`",
                hint="give the prompt, or leave out `--samples` and `--best-of`",
            )
        return shown, written


@dataclass(frozen=True, slots=True, kw_only=True)
class FormFlags:
    """The form of an answer."""

    schema: o.Schema
    json_object: o.JsonObject
    regex: o.Regex
    grammar: o.Rules

    def form(self) -> "Grammar | None":
        """The same as a chat wants it. Raises `UsageError` for two of them, or a file that cannot be read."""
        given = (self.schema is not None, self.json_object, self.regex is not None, self.grammar is not None)
        if not any(given):
            return None
        from localinfer.chats.given_forms import form_of

        if sum(given) > 1:
            raise UsageError(
                "an answer has one form", hint="give one of `--schema`, `--json-object`, `--regex` and `--grammar`"
            )
        values = {"schema": self.schema, "regex": self.regex, "grammar": self.grammar}
        named = next(((name, value) for name, value in values.items() if value is not None), None)
        return form_of(*named) if named else form_of("json-object", "")

    def checked(self) -> "Grammar | None":
        """The same, refused at once where no model could keep it."""
        form = self.form()
        if form is not None:
            from localinfer.engine.grammar import check

            check(form)
        return form


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingFlags:
    """Whether a model thinks before it answers, and whether that is shown."""

    think: o.Think
    no_think: o.NoThink
    show_thinking: o.ShowThinking

    def wanted(self) -> bool | None:
        """None: as the model's chat template has it. Raises `UsageError` for both at once."""
        if self.think and self.no_think:
            raise UsageError("`--think` and `--no-think` do not go together", hint="give one of them")
        return True if self.think else False if self.no_think else None

    def variables(self, template: str | None) -> Mapping[str, Any]:
        """What to tell the chat template. Raises `NotSupported` where it has no such switch."""
        from localinfer.chats.thinking_switch import thinking_variables

        return thinking_variables(template, self.wanted())


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthFlags:
    """What widths of layers are mixed for."""

    bpw: o.Bpw
    target_size: o.TargetSize
    target_kld: o.TargetKld
    uniform: o.Uniform

    def require_one(self) -> None:
        """Raise `UsageError` for two at once."""
        names = {"bpw": self.bpw, "target-size": self.target_size, "target-kld": self.target_kld}
        given = [f"`--{name}`" for name, value in ({**names, "uniform": self.uniform}).items() if value]
        if len(given) > 1:
            raise UsageError(f"{given[0]} and {given[1]} were both given", hint="leave one of them out")


@dataclass(frozen=True, slots=True, kw_only=True)
class TariffFlags:
    """What electricity and the machine cost."""

    usd_per_kwh: o.UsdPerKwh
    watts: o.Watts
    hardware_usd: o.HardwareUsd
    hardware_years: o.HardwareYears

    def tariff(self) -> Tariff:
        """The same as `cost` wants it."""
        return Tariff(
            usd_per_kwh=self.usd_per_kwh,
            watts=self.watts,
            hardware_usd=self.hardware_usd,
            hardware_years=self.hardware_years,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CostFlags(TariffFlags):
    """The same, and which model of a provider to compare with."""

    api_model: o.ApiModel


@dataclass(frozen=True, slots=True, kw_only=True)
class RivalFlags:
    """What a measurement is compared with: another engine, and an earlier report."""

    against: o.Against
    against_file: o.AgainstFile
    compare: o.Compare
    max_drop: o.MaxDrop


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadFlags:
    """What is timed instead of tests: requests of mixed lengths, or new processes."""

    startup: o.Startup
    workload: o.Workload
    rate: o.Rate
    requests: o.Requests


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryFlags:
    """What is kept of benchmarks."""

    history: o.History
    no_history: o.NoHistory


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationFlags:
    """Whether all steps from the naive way up are measured, and how."""

    ladder: o.Ladder
    bits: o.Bits
    plot: o.Plot
    replay: o.Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorFlags:
    """Where a server listens, and whom it lets in."""

    host: o.Host
    port: o.Port
    api_key_file: o.ApiKeyFile
    allow_host: o.AllowHost
    allow_origin: o.AllowOrigin


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomFlags:
    """Random weights of a known shape, instead of a model."""

    random: o.Random
    group: o.Group
    head_bits: o.HeadBits


def spread(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as Typer can read it: a bundle among its keyword-only parameters becomes its fields, one flag each.

    Positional parameters are arguments and stay as they are. Every flag gets a default, since `Command` fills it in.
    """
    hints = get_type_hints(function, include_extras=True)
    bundles: dict[str, tuple[type, list[str]]] = {}
    shown: list[Parameter] = []
    for parameter in inspect.signature(function).parameters.values():
        kind = hints[parameter.name]
        if parameter.kind is not Parameter.KEYWORD_ONLY:
            shown.append(parameter.replace(annotation=kind))
        elif is_dataclass(kind) and isinstance(kind, type):
            names = [field.name for field in fields(kind)]
            bundles[parameter.name] = (kind, names)
            types = get_type_hints(kind, include_extras=True)
            shown += [_flag(name, types[name]) for name in names]
        else:
            shown.append(_flag(parameter.name, kind))

    @wraps(function)
    def called(**values: Any) -> Any:
        for name, (bundle, names) in bundles.items():
            values[name] = bundle(**{field: values.pop(field) for field in names})
        return function(**values)

    called.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in shown}
    return called


def _flag(name: str, kind: Any) -> Parameter:
    default = {bool: False, list[str]: []}.get(kind.__origin__)  # of the shape Typer takes the flag to have
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
