"""What a form of the answer costs a step: two answers of one engine take turns, step by step, one with a form.

    python -m tools.proofs.masks starter

Both go on alike (`ignore_eos`, the same prompt, drafts off), so that step n of one is as long as step n of the other.
Steps in which the form was certain of more than one token are left out, as their time is not a token's. Told are the
medians of a step and of the pairs' differences.
"""

import argparse
import json
import time
from collections.abc import Iterator
from statistics import median

from localinfer.api import load
from localinfer.chats.chat import Chat
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.grammar import Constraint, Grammar
from localinfer.engine.protocol import Engine
from localinfer.engine.request import Request
from localinfer.events import Text

TOKENS = 160
SCHEMA = {
    "type": "array",
    "minItems": 40,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 40},
            "born": {"type": "string", "format": "date"},
            "height": {"type": "number", "minimum": 0, "maximum": 3},
            "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}},
        },
        "required": ["name", "born", "height", "tags"],
        "additionalProperties": False,
    },
}


def steps(engine: Engine, request: Request) -> Iterator[tuple[float, int]]:
    """Seconds and tokens of each step of one answer, until it ends."""
    handle = engine.add(request)
    try:
        while True:
            begun = time.perf_counter()
            events = engine.step()
            seconds = time.perf_counter() - begun
            tokens = sum(len(event.token_ids) for event in events if isinstance(event, Text))
            if not events:
                return
            if tokens:
                yield seconds, tokens
    finally:
        engine.cancel(handle)
        engine.step()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="starter")
    parser.add_argument("--rounds", type=int, default=4)
    asked = parser.parse_args()
    pairs = list[tuple[float, float]]()
    with load(asked.model, EngineConfig(draft="off", context=1024)) as engine:
        prompt = tuple(Chat(engine).tokens_of("Write down some people."))
        constraint = Constraint(Grammar("json_schema", json.dumps(SCHEMA)), engine.tokenizer)
        for turn in range(2 * asked.rounds):
            sampling = SamplingParams(temperature=1, max_tokens=TOKENS, seed=turn // 2, ignore_eos=True)
            plain, formed = (Request(prompt, sampling, constraint=one) for one in (None, constraint))
            order = (plain, formed) if turn % 2 else (formed, plain)
            first, second = (list(steps(engine, one)) for one in order)
            both = zip(first[2:], second[2:], strict=False)  # the first ones read the prompt
            for one, other in both:
                free, kept = (one, other) if turn % 2 else (other, one)
                if free[1] == kept[1] == 1:
                    pairs.append((free[0], kept[0]))
    free, kept = (median(times) for times in zip(*pairs, strict=True))
    more = median(kept - free for free, kept in pairs)
    print(f"{len(pairs)} pairs of steps: {free * 1e3:.3f} ms without a form, {kept * 1e3:.3f} ms with one")
    print(f"median of the differences {more * 1e6:.0f} us, {100 * more / free:.2f} % of a step")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
