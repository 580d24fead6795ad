"""The tensors of a model by both names, with their shapes on either side: what import and export go through."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import prod

from localinfer.formats.gguf_forms import Form

_EMBEDDING = ("token_embd.weight", "model.embed_tokens.weight", "table")
_HEAD = ("output.weight", "lm_head.weight", "table")
_OF_ATTENTION = ("q", "k", "kv", "o", "head")


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """The numbers that make the shapes of a model's tensors."""

    hidden: int
    inner: int
    vocab: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    experts: int = 0
    expert_inner: int = 0
    shared_inner: int = 0
    conv_length: int = 0
    conv_layers: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Renamed:
    """One tensor of a directory: its GGUF name, its name and shape here, and the heads whose rows are reordered
    (or 0)."""

    source: str
    name: str
    shape: tuple[int, ...]
    rope_heads: int = 0
    minus_one: bool = False
    stored: tuple[int, ...] = ()
    """The shape in the GGUF file, if it is another."""
    first: int = 0
    """Its first row there: the experts of a layer are one tensor."""
    is_float: bool = False
    """It is small, decides much, and is not quantized."""

    @property
    def rows(self) -> int:
        """Rows of the last axis."""
        return prod(self.shape[:-1])

    @property
    def file_shape(self) -> tuple[int, ...]:
        return self.stored or self.shape


def renamed(form: Form, widths: Widths, present: Callable[[str, str], bool]) -> Iterator[Renamed]:
    """Every tensor of the model, in the order of use; `present(GGUF name, name here)` says of optional ones whether
    they are there."""
    yield _one(form, widths, *_EMBEDDING)
    optional = {
        source: name
        for _, names in form.optional
        if any(present(f"blk.0.{source}", f"model.layers.0.{name}") for source, (name, _) in names.items())
        for source, name in names.items()
    }
    for layer in range(widths.layers):
        names = {**form.layer, **optional}
        if widths.conv_layers and widths.conv_layers[layer]:
            names = {**{key: value for key, value in names.items() if value[1] not in _OF_ATTENTION}, **form.conv}
        for source, (name, kind) in names.items():
            one = _one(form, widths, f"blk.{layer}.{source}", f"model.layers.{layer}.{name}", kind)
            if "{}" not in name:
                yield one
                continue
            for number in range(widths.experts):
                yield replace(one, name=one.name.replace("{}", str(number)), first=number * one.rows)
    for source, name, kind in form.final:
        yield _one(form, widths, source, name, kind)
    if not widths.tied:
        yield _one(form, widths, *_HEAD)


def _one(form: Form, widths: Widths, source: str, name: str, kind: str) -> Renamed:
    q, kv = widths.heads * widths.head_dim, widths.kv_heads * widths.head_dim
    hidden, inner = widths.hidden, widths.inner
    shapes: dict[str, tuple[int, ...]] = {
        "norm": (hidden,),
        "bias": (hidden,),
        "head": (widths.head_dim,),
        "q": (q, hidden),
        "k": (kv, hidden),
        "kv": (kv, hidden),
        "qkv": (q + 2 * kv, hidden),
        "o": (hidden, q),
        "q_norm": (q,),
        "k_norm": (kv,),
        "q_bias": (q,),
        "k_bias": (kv,),
        "kv_bias": (kv,),
        "up": (inner, hidden),
        "gate_up": (2 * inner, hidden),
        "up_bias": (inner,),
        "down": (hidden, inner),
        "router": (widths.experts, hidden),
        "experts_up": (widths.expert_inner, hidden),
        "experts_down": (hidden, widths.expert_inner),
        "shared_gate": (1, hidden),
        "shared_up": (widths.shared_inner, hidden),
        "shared_down": (hidden, widths.shared_inner),
        "conv_in": (3 * hidden, hidden),
        "conv": (hidden, 1, widths.conv_length),
        "conv_out": (hidden, hidden),
        "table": (widths.vocab, hidden),
    }
    shape = shapes[kind]
    stored = {"shared_gate": (hidden,), "conv": (hidden, widths.conv_length)}.get(kind, ())
    if "{}" in name:
        stored = (widths.experts, *shape)
    heads = {"q": widths.heads, "q_bias": widths.heads, "k": widths.kv_heads, "k_bias": widths.kv_heads}.get(kind, 0)
    return Renamed(
        source,
        name,
        shape,
        rope_heads=heads if form.rotated else 0,
        minus_one=form.plus_one and kind in ("norm", "head"),
        stored=stored,
        is_float=kind in ("router", "shared_gate"),
    )
