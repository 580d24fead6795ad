"""What answers that keep a schema are worth: the JSON Schema Test Suite's schemas, by keyword, and two validators.

    git clone https://github.com/json-schema-org/JSON-Schema-Test-Suite
    pip install 'jsonschema[format]'
    python -m tools.proofs.schemas JSON-Schema-Test-Suite --outputs 500

Every schema of the suite's draft 2020-12 is given to `--schema`; those that are taken are answered at temperature 1,
round after round, until so many answers have ended by themselves. Each of them must be valid for `jsonschema` and for
`jsonschema-rs`, formats included. Exit code 1 where one is not.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema_rs

from localinfer.api import load
from localinfer.chats.chat import Chat
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.grammar import Constraint, Grammar
from localinfer.engine.protocol import Engine
from localinfer.engine.request import Request
from localinfer.errors import LocalInferError
from localinfer.events import Finished

TOGETHER = 16
MOST_TOKENS = 64

jsonschema: Any = import_module("jsonschema")


@dataclass(frozen=True)
class Case:
    """A schema of the suite."""

    keyword: str
    words: str
    schema: Any


def cases_of(suite: Path) -> Iterator[Case]:
    """All schemas of the draft, formats behind the others."""
    draft = suite / "tests" / "draft2020-12"
    for path in (*sorted(draft.glob("*.json")), *sorted(draft.glob("optional/format/*.json"))):
        prefix = "format " if path.parent.name == "format" else ""
        for group in json.loads(path.read_text(encoding="utf-8")):
            yield Case(prefix + path.stem, group["description"], group["schema"])


def constraint_of(engine: Engine, case: Case) -> Constraint | None:
    """None for a schema that is refused."""
    try:
        return Constraint(Grammar("json_schema", json.dumps(case.schema)), engine.tokenizer)
    except LocalInferError:
        return None


def check_of(case: Case) -> Callable[[Any], str | None]:
    """What is wrong with a value, or None."""
    formats = jsonschema.Draft202012Validator.FORMAT_CHECKER
    slow = jsonschema.Draft202012Validator(case.schema, format_checker=formats)
    quick = jsonschema_rs.Draft202012Validator(case.schema, validate_formats=True)

    def check(value: Any) -> str | None:
        try:
            error = next(slow.iter_errors(value), None)
        except re.error:
            error = None  # a pattern that Python's own expressions do not know
        if error is not None:
            return f"jsonschema: {error.message}"
        if "Infinity" in json.dumps(value):
            return None  # a number beyond a double's, which Python cannot hand on to the other one
        return None if quick.is_valid(value) else "jsonschema-rs: not valid"

    return check


def answers(engine: Engine, cases: list[tuple[Case, Constraint]], seed: int) -> Iterator[tuple[Case, str, str]]:
    """Each case answered once: the case, the text, how it ended."""
    requests = []
    for case, constraint in cases:
        sampling = SamplingParams(temperature=1, top_k=0, top_p=1, max_tokens=MOST_TOKENS, seed=seed)
        prompt = Chat(engine).tokens_of(f"An example of JSON for: {case.keyword}, {case.words}")
        requests.append(Request(tuple(prompt), sampling, constraint=constraint))
    for step in engine.driver.steps(requests):
        for (case, _), events in zip(cases, step, strict=True):
            for event in events:
                if isinstance(event, Finished):
                    yield case, engine.tokenizer.decode(event.token_ids), event.reason


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--outputs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    all_cases = list(cases_of(asked.suite))
    whole, cut, wrong = Counter[str](), Counter[str](), Counter[str]()
    with load(asked.model, EngineConfig(draft="off", context=512, parallel=TOGETHER)) as engine:
        found = [(case, constraint_of(engine, case)) for case in all_cases]
        forms = [(case, constraint) for case, constraint in found if constraint is not None]
        taken = [case for case, _ in forms]
        print(f"{len(taken)} of {len(all_cases)} schemas are taken", flush=True)
        checks = {id(case): check_of(case) for case in taken}
        for turn in range(1000):
            for case, text, reason in answers(engine, forms, asked.seed + turn):
                if reason != "stop":
                    cut[case.keyword] += 1
                    continue
                whole[case.keyword] += 1
                if error := checks[id(case)](json.loads(text)):
                    wrong[case.keyword] += 1
                    print(f"FAILED {case.keyword}, {case.words}: {text!r}: {error}", flush=True)
            print(f"round {turn + 1}: {whole.total()} answers, {wrong.total()} wrong", flush=True)
            if whole.total() >= asked.outputs:
                break
    print(f"{'keyword':28} {'schemas':>8} {'taken':>6} {'answers':>8} {'cut':>5} {'wrong':>6}")
    for keyword in dict.fromkeys(case.keyword for case in all_cases):
        schemas, accepted = (sum(case.keyword == keyword for case in some) for some in (all_cases, taken))
        figures = f"{schemas:8} {accepted:6} {whole[keyword]:8} {cut[keyword]:5} {wrong[keyword]:6}"
        print(f"{keyword:28} {figures}")
    print(f"{whole.total()} answers, {cut.total()} cut at {MOST_TOKENS} tokens, {wrong.total()} wrong")
    return int(wrong.total() > 0)


if __name__ == "__main__":
    raise SystemExit(main())
