"""What transformers says of a tiny model, in float32: its greedy text, and the logits along the way."""

import atexit
import json
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.graph.variants import LEAD, ROUTER_LEAD, make_variant
from tests.tiny import IM_END, IM_START, nested, nested_name, write_json

PROMPT = [IM_START, *b"Hello, world", IM_END, *b"\n"]
STEPS = 64


@dataclass(frozen=True)
class Oracle:
    """`tokens` are the prompt and 64 greedy ones; row i of `logits` scores the token after `tokens[i]`."""

    path: Path
    tokens: list[int]
    logits: NDArray[np.float32]
    routed_by: float
    """The least lead of a chosen expert over one that was not, in standard deviations of the router's logits."""

    @property
    def greedy(self) -> list[int]:
        return self.tokens[len(PROMPT) :]

    def decides(self) -> None:
        """Assert that no step is a near tie, nor any choice of experts."""
        assert self.routed_by >= ROUTER_LEAD, f"experts lead by {self.routed_by:.4f}: choose another seed"
        steps = np.sort(self.logits[len(PROMPT) - 1 : -1], axis=1)
        lead = (steps[:, -1] - steps[:, -2]) / steps.std(axis=1)
        assert lead.min() >= LEAD, f"step {lead.argmin()} leads by {lead.min():.4f}: choose another seed"


@cache
def oracle(variant: str) -> Oracle:
    """The tiny model of `variant` on disk, run by transformers; made once a test session."""
    path = make_variant(variant, Path(mkdtemp(prefix=f"tiny-{variant}-")))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    tokens, logits, routed_by = run_transformers(path, PROMPT, STEPS)
    return Oracle(path, tokens, logits, routed_by)


def transformers_model(path: Path) -> Any:
    """The model at `path` in float32; it is untyped."""
    import torch
    import transformers

    torch.set_num_threads(1)  # tiny matrices: two threads mostly wait for each other
    words: Any = transformers.utils.logging
    words.set_verbosity_error()
    words.disable_progress_bar()
    kind = json.loads((path / "config.json").read_text())["model_type"]
    if kind == "muse_glimmer_text":  # transformers runs its head inside the whole model alone
        path, kind = _whole(path), "muse_glimmer"
    classes: Any = (
        transformers.AutoModelForImageTextToText
        if kind in ("mistral3", "gemma4", "gemma4_unified", "muse_glimmer")
        else transformers.AutoModelForCausalLM
    )
    return classes.from_pretrained(path, dtype=torch.float32)


def _whole(path: Path) -> Path:
    """The model at `path` as the text half of one that also sees pictures."""
    from safetensors.torch import load_file, save_file

    made = Path(mkdtemp(prefix="tiny-whole-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    config = json.loads((path / "config.json").read_text())
    write_json(made / "config.json", nested("muse_glimmer", {"tie_word_embeddings": False, **config}))
    tensors = load_file(path / "model.safetensors")
    save_file({nested_name("muse_glimmer", name): value for name, value in tensors.items()}, made / "model.safetensors")
    return made


def run_transformers(path: Path, prompt: list[int], steps: int) -> tuple[list[int], NDArray[np.float32], float]:
    """`prompt` and `steps` greedy tokens after it, the logits after each of them, and `Oracle.routed_by`."""
    import torch

    model = transformers_model(path)
    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]), max_new_tokens=steps, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        leads = list[float]()
        for module in model.modules():
            kind = type(module).__name__.lower()
            if kind.endswith("topkrouter"):
                module.register_forward_hook(lambda *of: leads.append(_router_lead(of[0], of[1], of[2][0])))
            elif kind == "gemma4textrouter":  # which gives its scores, not logits
                module.register_forward_hook(
                    lambda *of: leads.append(_lead(of[2][0].log(), of[0].config.top_k_experts))
                )
        logits = model(out).logits[0]
    return out[0].tolist(), logits.numpy(), min(leads, default=np.inf)


def _router_lead(router: Any, given: Any, logits: Any) -> float:
    """The least lead of what the router chooses by, groups of experts included."""
    worth = logits
    if hasattr(router, "moe_statics"):
        worth = router.moe_statics(logits.softmax(dim=-1))
    elif getattr(router, "use_expert_bias", False):  # handed in by the block around it
        worth = logits.sigmoid() + given[1]
    elif hasattr(router, "e_score_correction_bias"):
        worth = logits.sigmoid() + router.e_score_correction_bias
    if getattr(router, "num_group", 1) == 1:
        return _lead(worth, router.top_k)
    grouped = worth.view(len(worth), router.num_group, -1)
    best = grouped.topk(2, dim=-1).values.sum(dim=-1)
    kept = best.topk(router.topk_group, dim=-1).indices[..., None].expand(-1, -1, grouped.shape[-1])
    return min(_lead(best, router.topk_group), _lead(grouped.gather(1, kept).flatten(1), router.top_k))


def _lead(scores: Any, chosen: int) -> float:
    """Of the last of the `chosen` over the next, in the row where it is least."""
    ordered = scores.sort(dim=-1, descending=True).values
    if chosen == ordered.shape[-1]:
        return np.inf
    return float(((ordered[:, chosen - 1] - ordered[:, chosen]) / scores.std(dim=-1)).min())


def assert_close(seen: NDArray[np.float32], said: NDArray[np.float32], tolerance: float) -> None:
    """Assert that no logit is off by more than `tolerance` of their standard deviation, and name the worst."""
    error = np.abs(seen - said) / said.std()
    row, column = np.unravel_index(int(error.argmax()), error.shape)
    if not error.max() <= tolerance:
        pytest.fail(
            f"token {column} after position {row}: {seen[row, column]} is not {said[row, column]}, "
            f"off by {error.max():.2e} of the spread; {tolerance:.2e} is allowed"
        )
