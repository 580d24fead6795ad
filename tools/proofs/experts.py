"""Whether calibrating expert by expert pays: a small mixture learns our calibration text, and is rounded both ways.

    python -m tools.proofs.experts WORK --minutes 5

The model is Qwen3's shape with 16 experts, two of which a token goes to, trained here by torch so that its experts mean
something; the first run keeps it in WORK. Told is the mean KL divergence, in nats a token, of each rounding from it, on
sequences that were neither trained nor calibrated on.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import kl_div, log_softmax
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from localinfer import quantize
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import CalibrationText, Method, quantize_checkpoint
from localinfer.quantize.calibration import calibration
from localinfer.reference.executor import Executor
from tests.tiny import make_checkpoint

HELD_OUT = 8
"""Sequences that judge."""

DATA = Path(quantize.__file__).with_name("data")
PLAIN = ("prose.txt", "technical.txt", "languages.txt", "code.txt", "arithmetic.txt")

SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "moe_intermediate_size": 96,
    "intermediate_size": 256,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "tie_word_embeddings": True,
    "max_position_embeddings": 1024,
}


def divided(work: Path) -> tuple[Path, Path]:
    """Files of our plain calibration text: most of the documents, and each eighth."""
    documents = [text for name in PLAIN for text in (DATA / name).read_text().split("\n---\n")]
    parts = [[text for at, text in enumerate(documents) if (at % 8 == 7) == held] for held in (False, True)]
    found = work / "most.txt", work / "held-out.txt"
    for path, texts in zip(found, parts, strict=True):
        path.write_text("\n---\n".join(texts))
    return found


def train(folder: Path, tokens: NDArray[np.int32], vocab: int, seconds: float) -> None:
    """Make the model and let it read `tokens` [sequences, length] for so long."""
    torch.manual_seed(0)
    config = Qwen3MoeConfig(vocab_size=vocab, output_router_logits=True, router_aux_loss_coef=0.01, **SHAPE)
    model = Qwen3MoeForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    ids, end, step = torch.from_numpy(tokens).long(), time.monotonic() + seconds, 0
    while (left := end - time.monotonic()) > 0:
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min(1.0, 0.02 + left / seconds)
        batch = ids[torch.randperm(len(ids))[:4]]
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    model.save_pretrained(folder)


def lost(original: Path, rounded: Path, tokens: NDArray[np.int32]) -> float:
    """Nats a token that `rounded` is off, on `tokens`."""
    one, other = Executor(Checkpoint(original)), Executor(Checkpoint(rounded))
    total = 0.0
    for ids in tokens:
        p, q = (log_softmax(model.logits(ids.tolist()).double(), -1) for model in (one, other))
        total += float(kl_div(q, p, log_target=True, reduction="sum")) / len(ids)
    return total / len(tokens)


def main() -> int:
    """Train where there is no model yet, round it both ways at 4 and 3 bits, and tell."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--methods", nargs="+", default=["rtn", "imatrix", "gptq"])
    parser.add_argument("--tokens", type=int, nargs="+", default=[32768])
    asked = parser.parse_args()
    source = asked.work / "model"
    if not source.exists():
        asked.work.mkdir(parents=True, exist_ok=True)
        make_checkpoint(source, "qwen3_moe", **SHAPE)
    tokenizer, files = Tokenizer(source), divided(asked.work)
    every, held_out = (calibration(tokenizer, None, 1 << 20, 0, (file,)) for file in files)
    held_out = held_out[:HELD_OUT]
    if not (source / "trained").exists():
        vocab = json.loads((source / "config.json").read_text())["vocab_size"]
        train(source, every, vocab, 60 * asked.minutes)
        (source / "trained").touch()
    for bits in (4, 3):
        for method in asked.methods:
            for count in asked.tokens if method != "rtn" else asked.tokens[:1]:
                dest = asked.work / f"{bits}-{method}-{count}-{time.time_ns()}"
                text = CalibrationText(count, files=files[:1])
                report = quantize_checkpoint(source, dest, bits=bits, method=_method(method), text=text)
                print(f"{bits} bits, {method} on {count}: {lost(source, dest, held_out):.5f} nats", flush=True)
                for note in report.notes:
                    print(f"  {note}")
    return 0


def _method(name: str) -> Method:
    found: Method = name  # type: ignore[assignment]
    return found


if __name__ == "__main__":
    raise SystemExit(main())
