"""What forms of a KV cache lose, before one is built: KL divergence of a model from itself, in torch.

    python -m tools.quality.cache_forms MODEL --text FILE [--ctx 512] [--chunks 2] FORM …

MODEL is a folder that transformers reads. A FORM is `KEYS,VALUES[,rN][,fN]`, as in `4,4`, `8,4a,r128` and
`4c,4a,r128,f16`: bits of keys and of values; with `a` a scale and a minimum for 32 columns of a token, with `c` the
same by channel for 32 tokens, else one scale for 32 columns (of 8 bits: for a head). The last `rN` tokens before a
query and the first `fN` of the text are read at 8 bits. As in the engine, keys and queries are rotated, but not those
that are rounded by channel, and queries have 8 bits. Weights and all else are float32. The last half of each chunk is
compared, 1024 positions at most.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer

ROWS, GROUP, SCORED = 512, 32, 1024


@dataclass(frozen=True)
class Form:
    """How keys and values are rounded, and for how many tokens they keep 8 bits."""

    keys: str
    values: str
    recent: int = 0
    first: int = 0

    @staticmethod
    def read(text: str) -> "Form":
        keys, values, *more = text.split(",")
        return Form(keys, values, **{{"r": "recent", "f": "first"}[word[0]]: int(word[1:]) for word in more})


def rounded(x: Tensor, form: str) -> Tensor:
    """`x` [heads, tokens, columns] as a cache of `form` gives it back."""
    bits, way = int(form[0]), form[1:]
    if way == "c":
        tokens = x.shape[1]
        last = functional.pad(x.mT, (0, -tokens % GROUP), mode="replicate")
        return _affine(last, bits)[..., :tokens].mT
    if way == "a":
        return _affine(x, bits)
    parts = x.reshape(*x.shape[:-1], -1, x.shape[-1] if bits == 8 else GROUP)
    most = 2 ** (bits - 1) - 1
    scale = (parts.abs().amax(-1, keepdim=True) / most).clamp(min=1e-12)
    found: Tensor = ((parts / scale).round() * scale).reshape(x.shape)
    return found


def _affine(x: Tensor, bits: int) -> Tensor:
    parts = x.reshape(*x.shape[:-1], -1, GROUP)
    least = parts.amin(-1, keepdim=True)
    scale = ((parts.amax(-1, keepdim=True) - least) / (2**bits - 1)).clamp(min=1e-12)
    found: Tensor = (((parts - least) / scale).round() * scale + least).reshape(x.shape)
    return found


def hadamard(size: int) -> Tensor:
    """The Walsh-Hadamard matrix of a power of two, of length 1."""
    made = torch.ones(1, 1)
    while len(made) < size:
        made = torch.cat([torch.cat([made, made], 1), torch.cat([made, -made], 1)])
    return made / math.sqrt(size)


class Attention:
    """Causal attention that reads keys and values through `form`; None: as they are."""

    form: Form | None = None

    def __call__(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, *, scaling: float, **_: Any
    ) -> tuple[Tensor, None]:
        queries, keys, values, form = query[0], key[0], value[0], self.form
        if form is not None:
            if form.keys[1:] != "c":
                turn = hadamard(keys.shape[-1])
                queries, keys = queries @ turn, keys @ turn
            queries = rounded(queries, "8")
            whole = (rounded(keys, "8"), rounded(values, "8"))
            keys, values = rounded(keys, form.keys), rounded(values, form.values)
            for few, many in zip((keys, values), whole, strict=True):
                few[:, : form.first] = many[:, : form.first]
        out = torch.empty_like(queries)
        shared = len(queries) // len(keys)
        for head in range(len(queries)):
            at = head // shared
            for start in range(0, queries.shape[1], ROWS):
                end = min(start + ROWS, queries.shape[1])
                rows = queries[head, start:end]
                before = torch.arange(start, end)[:, None] - torch.arange(end)
                scores = rows @ keys[at, :end].T
                near = None
                if form is not None and form.recent:
                    near = before < form.recent
                    scores = torch.where(near, rows @ whole[0][at, :end].T, scores)
                shares = (scores * scaling).masked_fill(before < 0, -math.inf).softmax(-1)
                if near is None:
                    out[head, start:end] = shares @ values[at, :end]
                else:
                    out[head, start:end] = (shares * ~near) @ values[at, :end]
                    out[head, start:end] += (shares * near) @ whole[1][at, :end]
        return out.transpose(0, 1)[None].contiguous(), None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("forms", nargs="+", type=Form.read, metavar="FORM")
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--ctx", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=2)
    asked = parser.parse_args()
    attention = Attention()
    AttentionInterface.register("rounded", attention)
    made: Any = AutoModelForCausalLM  # whose types lead nowhere
    model = made.from_pretrained(asked.model, dtype=torch.float32, attn_implementation="rounded").eval()
    text = asked.text.read_text()[: asked.ctx * asked.chunks * 16]
    tokens = AutoTokenizer.from_pretrained(asked.model)(text, return_tensors="pt").input_ids[0]
    if len(tokens) < asked.ctx * asked.chunks:
        parser.error(f"{asked.text}: {len(tokens)} tokens, {asked.ctx * asked.chunks} are needed")
    found: dict[Form, list[Tensor]] = {form: [] for form in asked.forms}
    with torch.inference_mode():
        for chunk in tokens[: asked.ctx * asked.chunks].view(asked.chunks, -1):
            attention.form = None
            original = _scores(model, chunk)
            for form in asked.forms:
                attention.form, began = form, time.monotonic()
                lost = (original.exp() * (original - _scores(model, chunk))).sum(-1)
                found[form].append(lost)
                taken = time.monotonic() - began
                sys.stderr.write(f"{form}: {float(lost.mean()):.5f}, {taken:.0f} s\n")
    for form, parts in found.items():
        lost = torch.cat(parts)
        sys.stdout.write(f"{form}  {float(lost.mean()):.5f} ± {float(lost.std() / len(lost) ** 0.5):.5f}\n")


def _scores(model: Callable[..., Any], tokens: Tensor) -> Tensor:
    """log p [positions, vocabulary] of the last half of `tokens`."""
    kept = min(len(tokens) // 2, SCORED)
    scores: Tensor = model(tokens[None], logits_to_keep=kept, use_cache=False).logits[0]
    return scores.double().log_softmax(-1)


if __name__ == "__main__":
    main()
