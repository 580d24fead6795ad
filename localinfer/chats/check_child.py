"""The process that checks calls of tools against their schemas. Started by `checks.py`.

A schema may come from a stranger: forty lines of it can ask for a million years. So it is looked at where that can be
ended, in a process that has given up files, network and processes.
"""

import json
import sys
import time
from functools import lru_cache
from typing import Any

import jsonschema_rs

from localinfer.chats.lockdown import CPU_SECONDS, lock
from localinfer.chats.sandbox_child import end_after, say
from localinfer.text import one_line

BACKTRACKS = 100_000
"""Steps that one pattern of a schema may take."""


@lru_cache(maxsize=64)
def validator_of(schema: str) -> Any:
    """The validator of a schema; nothing that it refers to is fetched. Raises for one that is none."""
    patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACKS)
    return jsonschema_rs.validator_for(json.loads(schema), pattern_options=patterns, offline=True)


def answer(line: str) -> dict[str, str]:
    """`{"text": "yes"}` where the arguments keep the schema, or none were given; `{"text": "no"}`, or `{"error": …}`
    for a schema that is none."""
    request = json.loads(line)
    end_after(request["seconds"])
    try:
        validator = validator_of(request["schema"])
        return {"text": "yes" if "arguments" not in request or validator.is_valid(request["arguments"]) else "no"}
    except Exception as error:  # of several kinds, one of them ValueError
        return {"error": one_line(str(error), 200)}
    finally:
        end_after(0)


def main() -> None:
    """What `checks.py` starts."""
    answer(json.dumps({"schema": '{"type": "object", "pattern": "a"}', "arguments": {}, "seconds": 30}))
    say({"held": lock()})
    for line in sys.stdin:
        say(answer(line))
        if time.process_time() > CPU_SECONDS / 2:  # the next request starts a fresh process
            return
