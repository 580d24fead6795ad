"""What a GGUF file says of a graph whose layers differ (Gemma 4): heads, widths, what they read of others."""

from collections.abc import Sequence
from typing import Any

from localinfer.formats.gguf_tensors import LayerWidths
from localinfer.graph.spec import LayerShape, ModelSpec
from localinfer.quantize.export_rope import cannot


def layer_keys(spec: ModelSpec) -> dict[str, Any]:
    """Keys that have a number for each layer, or one for each kind. Raises `NotSupported` for what llama.cpp would
    read otherwise."""
    shapes, windows = spec.shapes, spec.windows
    own = sum(one.kv_of < 0 for one in shapes)
    if any(one.kv_of != own - (2 if window else 1) for one, window in zip(shapes[own:], windows[own:], strict=True)):
        raise cannot("keys and values of these layers for others")
    if spec.layer_inputs and spec.layer_inputs_vocab != spec.vocab_size:
        raise cannot(f"inputs by layer of {spec.layer_inputs_vocab} tokens, but {spec.vocab_size} in the vocabulary")
    full = _first(shapes, [not window for window in windows])
    sliding = _first(shapes, [window > 0 for window in windows])
    return {
        "attention.key_length": full.head_dim,
        "attention.value_length": full.head_dim,
        "attention.key_length_swa": sliding.head_dim,
        "attention.value_length_swa": sliding.head_dim,
        "attention.head_count_kv": _once([one.kv_heads for one in shapes]),
        "feed_forward_length": _once([one.inner for one in shapes]),
        "attention.shared_kv_layers": len(shapes) - own,
        "attention.sliding_window_pattern": [window > 0 for window in windows],
        "embedding_length_per_layer_input": spec.layer_inputs,
    }


def layer_widths(spec: ModelSpec) -> tuple[LayerWidths, ...]:
    """The same as numbers that make shapes of tensors."""
    return tuple(
        LayerWidths(
            kv_heads=one.kv_heads,
            head_dim=one.head_dim,
            inner=one.inner,
            has_keys=one.kv_of < 0,
            has_values=one.has_values,
        )
        for one in spec.shapes
    )


def _first(shapes: Sequence[LayerShape], chosen: Sequence[bool]) -> LayerShape:
    return shapes[chosen.index(True)]


def _once(numbers: list[int]) -> int | list[int]:
    """One number where all are the same."""
    return numbers[0] if len(set(numbers)) == 1 else numbers
