"""How llama.cpp has one model type: what its converter changes, and what its own code takes for granted.

Sources: llama.cpp's converter and loaders.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from localinfer.formats.gguf_names import LLAMA, NORM, Names


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How llama.cpp has one model type. `arch` is its name for it, which several types may share."""

    arch: str
    class_name: str
    layer: Names = field(default_factory=lambda: LLAMA)
    recurrent: Names = field(default_factory=dict)
    """Of layers with a convolution or a delta net instead of attention."""
    dense: Names = field(default_factory=dict)
    """Of the first layers, which have no experts."""
    mixers: Mapping[str, Names] = field(default_factory=dict)
    """By what a layer is, where each is one thing, what it has beside `layer`."""
    ahead: Names = field(default_factory=dict)
    """Of the head that guesses tokens ahead, which is a layer more: what it has beside `layer`."""
    inputs: Names = field(default_factory=dict)
    """Of layers that get an input of their own."""
    input_tables: tuple[tuple[str, str, str], ...] = ()
    """What makes these inputs, as `final`."""
    by_layer: bool = False
    """Key heads, sizes of heads and widths may differ from layer to layer."""
    unscaled: bool = False
    """Scores are not scaled."""
    raw_tokens: bool = False
    """A tokenizer that falls back to bytes keeps its merges."""
    proportional: bool = False
    """`rope_freqs.weight` says which pairs of full layers stand still."""
    folded: bool = False
    """The family's numbers are in its weights."""
    may_be_still: bool = False
    """Nothing may be rotated."""
    optional: tuple[tuple[str, Names], ...] = ()
    """Fields of config.json, and the biases that are there, all of them, where it is true."""
    final: tuple[tuple[str, str, str], ...] = (NORM,)
    rotated: bool = False
    """llama.cpp turns neighbours together, the original halves: the rows of q and k are in another order."""
    plus_one: bool = False
    """Norm weights are stored with 1 added."""
    eps: tuple[str, str] = ("attention.layer_norm_rms_epsilon", "rms_norm_eps")
    """The metadata key, and the field of config.json."""
    activation: tuple[str, str] = ("hidden_act", "silu")
    own_head: bool = False
    """llama.cpp wants `output.weight` even where it is the embedding."""
    no_head: bool = False
    """llama.cpp knows no head but the embedding."""
    square: bool = False
    """llama.cpp wants heads that are together as wide as the stream."""
    ungrouped: bool = False
    """llama.cpp wants a key head for each query head."""
    divisors: bool = False
    """`rope_freqs.weight` is read."""
    scale_in_norms: bool = False
    """The scale of scores is a norm of queries."""
    post_eps: float | None = None
    """Of norms behind each half, where it is another, in llama.cpp's own code."""
    lists_windows: bool = False
    """The file says of each layer if it has a window."""
    longrope: bool = False
    """Factors of frequencies for short and for long contexts are read."""
    one_base: bool = False
    """llama.cpp turns sliding layers by the base of the full ones, whatever the file says."""
    still_every: int = 0
    """Every n-th layer rotates nothing, in llama.cpp's own code."""
    still_full: bool = False
    """Where some layers have a window, those without one rotate nothing."""
    always_windows: bool = False
    """llama.cpp takes some layers for sliding ones, whatever the file says."""
    window_layers: int = 0
    """Of models with this many layers only llama.cpp reads the window; 0: of all."""
    wide_layers: int = 0
    """With this many layers the scale of scores is by the stream's width over the heads, not by a head's width."""
    logits_divided: bool = False
    """`logit_scale` divides."""
    partial: bool = False
    """A part of each head may be turned."""
    sections: bool = False
    """llama.cpp wants to know which frequencies belong to which axis of a picture."""
    tiled: bool = False
    """The value heads that share a key head do not stand together, but key heads take turns."""
    clamp: tuple[float, float] | None = None
    """Limit and alpha of the experts' SwiGLU, in llama.cpp's own code."""
    uncut: bool = False
    """The models' YaRN goes by place to fractions of frequencies; llama.cpp cuts it at whole ones, and no key tells."""
    sigmoid: bool = False
    """Scores of experts are sigmoids, and the file says so."""
    reads: frozenset[str] = frozenset()
    """Metadata keys of its own."""
    neutral: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Values of keys that mean what llama.cpp does without asking."""
