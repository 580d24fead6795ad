"""Requests, events and errors as JSON, for one version of the program at both ends."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import localinfer.errors as errors
from localinfer.config import SamplingParams
from localinfer.errors import LocalInferError
from localinfer.events import Drafting, Event, Finished, Guesses, Progress, Scored, Shifted, Started, Stats, Text

if TYPE_CHECKING:
    from localinfer.engine.protocol import EngineInfo, Tokenizer
    from localinfer.engine.request import Request

_KINDS = {kind.__name__: kind for kind in (Started, Progress, Text, Shifted, Stats, Finished)}
_ERRORS = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, LocalInferError)
}
_BY_CODE = {kind.exit_code: kind for kind in reversed(_ERRORS.values()) if kind.exit_code != 1}


def sampling_from(row: Mapping[str, Any]) -> SamplingParams:
    biases = tuple((token, bias) for token, bias in row["logit_bias"])
    return SamplingParams(**{**row, "stop": tuple(row["stop"]), "logit_bias": biases})


def of_request(request: "Request") -> dict[str, Any]:
    """All of it; a form of the answer as it was given, to be read anew."""
    names = ("prompt", "on_overflow", "keep", "marks", "begun", "logprobs", "pool", "forced", "remember")
    row: dict[str, Any] = {name: getattr(request, name) for name in names}
    row["sampling"] = asdict(request.sampling)
    if (form := request.constraint) is not None:
        row["form"], row["budget"] = form.grammar and asdict(form.grammar), form.budget
        row["around"] = asdict(form.marks) if form.marks is not None else None
    return row


def request_from(row: Mapping[str, Any], tokenizer: "Tokenizer") -> "Request":
    """The request that `of_request` made a row of. Raises `UsageError` for a form that cannot be kept."""
    from localinfer.engine.grammar import Grammar, Marks, read
    from localinfer.engine.request import Request

    constraint = None
    if "form" in row:
        form, around = row["form"], row["around"]
        grammar = None if form is None else Grammar(**form)
        marks = None if around is None else Marks(**{**around, "final": tuple(around["final"])})
        constraint = read(grammar, tokenizer, marks, row["budget"])
        if row["begun"]:
            constraint.require_kept(row["prompt"][-row["begun"] :])
    return Request(
        tuple(row["prompt"]),
        sampling_from(row["sampling"]),
        row["on_overflow"],
        keep=row["keep"],
        marks=tuple(row["marks"]),
        begun=row["begun"],
        constraint=constraint,
        logprobs=row["logprobs"],
        pool=row["pool"],
        forced=tuple(row["forced"]),
        remember=row["remember"],
    )


def of_event(event: Event) -> dict[str, Any]:
    if isinstance(event, Finished):
        row = {name: getattr(event, name) for name in ("handle", "reason", "token_ids", "stop", "vector")}
        row |= {"stats": asdict(event.stats), "error": event.error and of_error(event.error)}
    else:
        row = asdict(event)
    return row | {"event": type(event).__name__}


def event_from(row: dict[str, Any], handle: int) -> Event:
    """The event of a row, as one of the request `handle`."""
    kind = _KINDS[row.pop("event")]
    row["handle"] = handle
    if kind is Text:
        row["token_ids"], row["score"] = tuple(row["token_ids"]), _scored(row["score"])
    elif kind is Stats:
        return _stats(row)
    elif kind is Finished:
        row["token_ids"], row["stats"] = tuple(row["token_ids"]), _stats(row["stats"] | {"handle": handle})
        row["error"] = row["error"] and error_from(row["error"])
        row["vector"] = None if row["vector"] is None else tuple(row["vector"])
    return kind(**row)


def of_error(error: LocalInferError) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }


def error_from(row: Mapping[str, Any]) -> LocalInferError:
    """The error of a row; of a kind that is not known, the one that ends a program alike."""
    kind = _ERRORS.get(row["kind"]) or _BY_CODE.get(row["exit_code"], LocalInferError)
    return kind(row["message"], hint=row["hint"])


def of_info(info: "EngineInfo") -> dict[str, Any]:
    """Without the times of steps, which belong to the process that takes them."""
    from dataclasses import replace

    return asdict(replace(info, step_timing=None))


def info_from(row: Mapping[str, Any]) -> "EngineInfo":
    from localinfer.engine.protocol import EngineInfo

    return EngineInfo(**{**row, "kv_layers": tuple(row["kv_layers"]), "notes": tuple(row["notes"])})


def _scored(row: Mapping[str, Any] | None) -> Scored | None:
    if row is None:
        return None
    top = tuple((token, logprob) for token, logprob in row["top"])
    return Scored(row["token"], row["logprob"], row["rank"], top)


def _stats(row: dict[str, Any]) -> Stats:
    drafting = row["drafting"]
    if drafting is not None:
        drafting["by_drafter"] = tuple(Guesses(**one) for one in drafting["by_drafter"])
        drafting["by_position"] = tuple((tried, right) for tried, right in drafting["by_position"])
        row["drafting"] = Drafting(**drafting)
    return Stats(**row)
