"""The process that runs a model's chat template. Started by `sandbox.py`, imports nothing else of ours.

A template is a program from a stranger. minijinja has no reach beyond the plain data handed in, and its fuel ends
loops; but one statement may still double a string, so this process also limits its own memory and can be killed.
Reads one JSON request a line from stdin, writes one JSON answer a line to stdout, ends with stdin.
"""

import json
import re
import sys
from datetime import datetime

import minijinja

FUEL = 5_000_000
"""Instructions one rendering may take: over 1,000 times what the longest real conversation needs."""

MEMORY_BYTES = 384 << 20
"""Address space of this process, about 40 MB of which it uses itself."""

_GENERATION = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")
"""A block that only training reads. It becomes a block that is always taken."""


class RefusedError(Exception):
    """The template called `raise_exception`: it does not want this conversation."""


def _raise_exception(message: object = "") -> None:
    raise RefusedError(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(str(pattern)[:100])


def _to_json(value: object, indent: int | None = None, **_options: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=None if indent is None else min(int(indent), 8))


def _environment() -> minijinja.Environment:
    return minijinja.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        debug=False,
        fuel=FUEL,
        auto_escape_callback=lambda _name: False,
        filters={"tojson": _to_json},
        globals={"raise_exception": _raise_exception, "strftime_now": _strftime_now},
    )


def _as_statement(found: re.Match[str]) -> str:
    left, end, right = found.groups()
    return f"{{%{left} {'endif' if end else 'if true'} {right}%}}"


def answer(line: str) -> dict[str, str]:
    """Render one request; `{"text": …}`, `{"refused": …}` or `{"error": …}`."""
    request = json.loads(line)
    source = _GENERATION.sub(_as_statement, request["template"])
    try:
        text = _environment().render_str(source, "chat_template", **request["data"])
    except RefusedError as refused:
        return {"refused": str(refused)[:500]}
    except minijinja.TemplateError as error:
        cause = error.__cause__
        if isinstance(cause, RefusedError):
            return {"refused": str(cause)[:500]}
        where = f" in line {error.line}" if error.line else ""
        return {"error": f"{error.detail or error.message}{where}"[:500]}
    except Exception as error:  # whatever a helper of ours met: an odd type, no memory
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    if len(text) > request["limit"]:
        return {"error": f"it wrote {len(text)} characters, over {request['limit']}"}
    return {"text": text}


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows; time and fuel still bound it
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def main() -> None:
    _limit_memory()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(line)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
