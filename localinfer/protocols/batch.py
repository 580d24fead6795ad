"""OpenAI's batch form: a line with `custom_id` and a request in it, a row with the response that a server would give.

The request is read, and its answer spelled, by the same code that serves it at its address.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import localinfer.chats.elsewhere as elsewhere
import localinfer.chats.row_file as own
from localinfer.chats.mapping import Answered, Manner, begin_chat
from localinfer.chats.rows import OF_MESSAGES, Asked, Line, asked_of, identity_of, meant, parts_of, refuse_keys, seed_of
from localinfer.errors import ContextOverflow, LocalInferError, UsageError
from localinfer.protocols import openai_chat, openai_text, responses, vectors
from localinfer.protocols.answer import Answer, Listener
from localinfer.protocols.asking import OF_COMMANDS, Ask, Task, tasks_of
from localinfer.protocols.errors import Refused, openai_form, status_of
from localinfer.protocols.fields import Fields
from localinfer.protocols.forms import Form
from localinfer.protocols.shape import Shape, Writer
from localinfer.protocols.vectors import Vectors
from localinfer.text import one_line

if TYPE_CHECKING:
    from localinfer.config import SamplingParams
    from localinfer.engine.protocol import Engine, Tokenizer

KNOWN = {"custom_id", "method", "url", "body"}
CHAT, TEXT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"
TEXTS: Mapping[str, Callable[[Fields], tuple[Ask, Shape]]] = {
    CHAT: openai_chat.understand,
    TEXT: openai_text.understand,
    RESPONSES: responses.understand,
}
"""Who understands what is sent to each address at which texts are written."""


@dataclass(frozen=True, slots=True)
class Request:
    """The request of a line. What is None was not understood."""

    url: str = CHAT
    body: Mapping[str, Any] | None = None
    wanted: "tuple[Ask, Shape] | Vectors | None" = None


@dataclass(slots=True)
class OtherModels:
    """The models that requests name and that do not answer them: that of the command does, whatever they name."""

    own: Collection[str]
    lines: int = 0
    first: str = ""

    def look_at(self, name: object) -> None:
        """What the next request names."""
        if isinstance(name, str) and name and name not in self.own:
            self.lines, self.first = self.lines + 1, self.first or name

    def told(self) -> str:
        """What to say of them at the end; empty where there are none."""
        several = f"{self.lines} lines name" if self.lines > 1 else "1 line names"
        named = f"another model (the first: `{one_line(self.first, 60)}`)"
        return f"{several} {named}; {next(iter(self.own))} was asked" if self.lines else ""


@dataclass(frozen=True, slots=True)
class Reader:
    """Understands lines of both forms. `manner` and `sampling` hold where they say nothing. Where it `is_elsewhere`,
    another server is to understand the requests, and only their envelopes are looked at."""

    manner: Manner
    sampling: "SamplingParams"
    limit: int
    ignore_unknown: bool = False
    is_elsewhere: bool = False
    others: OtherModels | None = None

    def understood(self, line: Line) -> Asked:
        """What `line` asks for. As `rows.understood`."""
        return asked_of(line, partial(self._meant, line), limit=self.limit)

    def _meant(self, line: Line, row: dict[str, Any]) -> dict[str, Any]:
        if "custom_id" not in row and "body" not in row:
            return meant(row, line=line, sampling=self.sampling, ignore_unknown=self.ignore_unknown)
        found: dict[str, Any] = {"batch": Request()}
        try:
            found["id"] = identity_of(row, "custom_id")
            if not self.ignore_unknown:
                refuse_keys(row.keys() - KNOWN, KNOWN)
            found["batch"] = request = _opened(row)
            if self.others is not None and request.body is not None:
                self.others.look_at(request.body.get("model"))
            seed = seed_of(self.sampling.seed, json.dumps(found["id"]))
            found["sampling"] = replace(self.sampling, seed=seed)
            if not self.is_elsewhere:
                found["batch"] = replace(request, wanted=self._wanted(request))
        except LocalInferError as error:
            found["error"] = error
        return found

    def _wanted(self, request: Request) -> "tuple[Ask, Shape] | Vectors":
        """The same as a server understands it. Raises `Refused`."""
        assert request.body is not None
        body = {**scores_of(request.url, request.body, self.manner), **request.body}
        if request.url == TEXT and body.get("max_tokens") is None and self.sampling.max_tokens:
            body["max_tokens"] = self.sampling.max_tokens  # else it would be the few of that address
        body["model"] = body.get("model") or "-"  # the model of the command is meant
        if self.ignore_unknown and isinstance(body.get("messages"), list):
            body["messages"] = [_known(one) for one in body["messages"]]
        fields = Fields(body, ignore=self.ignore_unknown)
        understand = TEXTS.get(request.url)
        wanted = vectors.understand(fields) if understand is None else understand(fields)
        fields.done()
        return wanted


def _opened(row: Mapping[str, Any]) -> Request:
    """The request in the envelope `row`. Raises `UsageError`."""
    if not isinstance(row.get("custom_id"), str):
        raise UsageError("`custom_id` is no text", hint='write `{"custom_id": "…", "method": "POST", "url": …}`')
    url, urls = row.get("url"), [*TEXTS, EMBEDDINGS]
    if row.get("method", "POST") != "POST" or url not in urls:
        raise UsageError("what is asked for is no `POST` to an address that is known", hint=f"of {', '.join(urls)}")
    body = row.get("body")
    if not isinstance(body, dict):
        raise UsageError("`body` is no object", hint='write `"body": {"messages": […]}`')
    if body.get("stream"):
        raise Refused("stream", "a row holds a whole answer: `stream` means nothing here", hint="leave it out")
    return Request(str(url), body)


def _known(message: Any) -> Any:
    """The message without keys that mean nothing."""
    if not isinstance(message, dict):
        return message
    for _, part, known in parts_of(message):
        for name in part.keys() - known:
            del part[name]
    return {name: value for name, value in message.items() if name in OF_MESSAGES}


def scores_of(url: str, body: Mapping[str, Any], manner: Manner) -> dict[str, Any]:
    """The scores that were asked for with the command, in the words of `url`; none where `body` says itself."""
    top = manner.logprobs
    if top is None or url == EMBEDDINGS or {"logprobs", "top_logprobs"} & body.keys():
        return {}
    if url == TEXT:
        return {"logprobs": top}
    return {"logprobs": True, "top_logprobs": top} if url == CHAT else {"top_logprobs": top}


def begin(engine: "Engine", asked: Asked, manner: Manner) -> Answered:
    """What is asked for the answer to a line."""
    request = asked.batch
    if not isinstance(request, Request):
        return begin_chat(engine, asked, manner)
    answered = Answered(asked, error=asked.error)
    if answered.error is None:
        try:
            answered.parts = _parts(engine, asked, request, manner)
        except ContextOverflow as error:
            answered.error = ContextOverflow(error.message, hint=answered.shorter)
        except LocalInferError as error:
            answered.error = error
    return answered


def _parts(engine: "Engine", asked: Asked, request: Request, manner: Manner) -> list[Answered]:
    if isinstance(request.wanted, Vectors):
        return [Answered(asked, request=one) for one in request.wanted.requests(engine)]
    assert request.wanted is not None
    ask = _with(manner, request.wanted[0], request.url)
    tasks = tasks_of(ask, engine, asked.sampling)
    return [_listening(engine, asked, task, one_call=ask.choice.one_call) for task in tasks]


def _listening(engine: "Engine", asked: Asked, task: Task, *, one_call: bool) -> Answered:
    return Answered(asked, request=task.request, listener=Listener(engine, task, one_call=one_call))


def _with(manner: Manner, ask: Ask, url: str) -> Ask:
    """The request with what `manner` says where it says nothing."""
    if manner.raw or manner.special:
        raise UsageError(
            "`--raw` and `--special` are for lines with `prompt`", hint=f"send texts as they are to {TEXT}"
        )
    if not ask.form and manner.grammar:
        ask = replace(ask, form=Form(manner.grammar, "response_format"))
    if not ask.turns:
        return ask
    unsaid = ask.think is None and not ask.variables
    if unsaid and manner.think is not None:
        ask = replace(ask, think=manner.think, think_field=OF_COMMANDS)
    return replace(ask, system=ask.system or manner.system)


def row_of(answered: Answered, tokenizer: "Tokenizer", model: str) -> dict[str, Any]:
    """The row of JSON for one line, which `model` answered."""
    asked, request = answered.asked, answered.asked.batch
    if not isinstance(request, Request):
        return own.row_of(answered, tokenizer)
    if answered.error is None:
        try:
            return response_row(asked, 200, _body(answered, request, Writer(model, tokenizer)))
        except LocalInferError as error:
            answered.error = error
    return error_row(answered)


def _body(answered: Answered, request: Request, writer: Writer) -> dict[str, Any]:
    """What a server answers; the same whenever it is asked, but for the names of calls and items."""
    if isinstance(request.wanted, Vectors):
        read = sum(len(part.prompt) for part in answered.parts)
        return request.wanted.whole(writer.name, read, [part.vector or () for part in answered.parts])
    assert request.wanted is not None
    body = request.wanted[1].whole(writer, [_answer(part) for part in answered.parts])
    head = str(body["id"]).partition("-")[0].partition("_")
    created = "created" if "created" in body else "created_at"
    return body | {"id": f"{head[0]}{head[1] or '-'}{answered.asked.digest}", created: 0}


def _answer(part: Answered) -> Answer:
    assert isinstance(part.listener, Listener)
    return part.listener.answer


def forwarded(asked: Asked, model: str, manner: Manner, given: Collection[str]) -> tuple[str, dict[str, Any]]:
    """The path and the body with which another server is asked for `model`: the request of the line as it is, and where
    it says nothing what was `given` with the command, and the seed."""
    request = asked.batch
    if not isinstance(request, Request):
        return CHAT, elsewhere.body_of(asked, model, manner, given)
    assert request.body is not None
    usual: dict[str, Any] = scores_of(request.url, request.body, manner)
    if request.url in (CHAT, TEXT):
        usual |= elsewhere.sampling_in(asked, given)
    if request.url == CHAT:
        usual |= elsewhere.settings_in(replace(manner, logprobs=None))
    if "max_completion_tokens" in request.body:
        usual.pop("max_tokens", None)
    return request.url, usual | dict(request.body) | {"model": model}


def error_row(answered: Answered) -> dict[str, Any]:
    """The row of a line that has no answer, in the form of the line."""
    if not isinstance(answered.asked.batch, Request):
        return own.error_row(answered)
    assert answered.error is not None
    return response_row(answered.asked, status_of(answered.error), openai_form(answered.error))


def response_row(asked: Asked, status: int, body: Mapping[str, Any]) -> dict[str, Any]:
    """The row for one line of a batch: the response of a server."""
    name = f"batch_req_{asked.index}_{asked.digest}"
    response = {"status_code": status, "request_id": name, "body": body}
    return {"id": name, "custom_id": asked.id, "response": response, "error": None}
