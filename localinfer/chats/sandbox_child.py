"""The process that runs a model's chat template. Started by `sandbox.py`; of ours it imports `lockdown.py` alone.

A template is a program from a stranger, written in Jinja. It is rendered by Jinja's immutable sandbox, set up as
`transformers` sets it up, so that it means here what its author saw there. Before the first one is read, this process
gives up files, network and processes: who gets out of the sandbox finds nothing.

Reads one JSON request a line from stdin, writes one JSON answer a line to stdout, ends with stdin.
"""

import json
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from localinfer.chats.lockdown import CPU_SECONDS, lock


class RefusedError(TemplateError):
    """The template called `raise_exception`: it does not want this conversation."""


class GenerationBlock(Extension):
    """`{% generation %}` marks what the model wrote, for training. The text inside is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_whole"), [], [], body).set_lineno(line)

    def _whole(self, caller: Macro) -> str:
        return caller()


def _raise_exception(message: object = "") -> None:
    raise RefusedError(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(str(pattern)[:100])


class _Dicts:
    """`dict` of a template: what it makes, and nothing of the class itself."""

    def __call__(self, *args: Any, **named: Any) -> dict[Any, Any]:
        return dict(*args, **named)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Names(Namespace):
    """`namespace` of a template, without names that begin with an underscore."""

    def __init__(*args: Any, **named: Any) -> None:  # a template may name one `self`
        self, *given = args
        Namespace.__init__(self, {_public(name): value for name, value in dict(*given, **named).items()})

    def __setitem__(self, name: str, value: Any) -> None:
        Namespace.__setitem__(self, _public(name), value)


def _public(name: Any) -> Any:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace takes no name that begins with an underscore, such as {name[:40]!r}")
    return name


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without Jinja's escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=1)
def compiled(source: str) -> Template:
    """The template as `transformers` would compile it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationBlock, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    environment.globals |= {"dict": _Dicts(), "namespace": _Names}
    return environment.from_string(source)


def answer(line: str) -> dict[str, str]:
    """Render one request; `{"text": …}`, `{"refused": …}` or `{"error": …}`."""
    request = json.loads(line)
    end_after(request["seconds"])
    try:
        return _rendered(compiled(request["template"]), request["data"], request["limit"])
    except RefusedError as refused:
        return {"refused": str(refused)[:500]}
    except Exception as error:  # a broken template, or whatever its helpers met: an odd type, no memory
        line_number = _line_of(error)
        where = f" in line {line_number}" if line_number else ""
        name = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
        return {"error": f"{name}{str(error)[:400]}{where}"}
    finally:
        end_after(0)


def _rendered(template: Template, data: dict[str, Any], limit: int) -> dict[str, str]:
    parts, length = [], 0
    for part in template.generate(data):
        parts.append(part)
        length += len(part)
        if length > limit:
            return {"error": f"it wrote over {limit} characters"}
    return {"text": "".join(parts)}


def _line_of(error: BaseException) -> int:
    """The line of the template where it went wrong; 0 if nobody knows."""
    if isinstance(error, TemplateSyntaxError):
        return error.lineno
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


WARM_UP = """{% generation %}{{ "\\t" }}{{ strftime_now("%c %Z") }}{{ {"a": 1.5} | tojson(indent=1) | pprint }}
{%- endgeneration %}{{ lipsum(1) }}{{ [1] | random }}{{ "a" | striptags | wordwrap }}{{ nothing.at.all }}"""
"""Uses what Jinja loads late, and fails, which loads the rest."""


def serve(reply: Callable[[str], dict[str, str]]) -> None:
    """Load everything, lock this process in, and answer requests."""
    reply(json.dumps({"template": WARM_UP, "data": {}, "limit": 10000, "seconds": 30}))
    compiled.cache_clear()
    say({"held": lock()})
    for line in sys.stdin:
        say(reply(line))
        if time.process_time() > CPU_SECONDS / 2:  # the next request starts a fresh process
            return


def end_after(seconds: float) -> None:
    """Let this process be ended after so much processor time, even where nobody is left to end it; 0 calls it off."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.setitimer(signal.ITIMER_PROF, seconds)


def say(answered: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answered) + "\n")
    sys.stdout.flush()


def main() -> None:
    """What `sandbox.py` starts."""
    serve(answer)
