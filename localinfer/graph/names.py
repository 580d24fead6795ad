"""What the graph calls a stored tensor, and which stored tensors nobody needs."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from localinfer.formats.checkpoint_files import listed

EMBEDDING, HEAD = "model.embed_tokens.", "lm_head."
_BARE = ("embed_tokens.", "layers.", "norm.")
AHEAD = "mtp."
_NEXTN = {
    "eh_proj.": "fc.",
    "enorm.": "pre_fc_norm_embedding.",
    "hnorm.": "pre_fc_norm_hidden.",
    "shared_head.norm.": "norm.",
}
_COPIES = ("embed_tokens.", "shared_head.head.")
Tensor = TypeVar("Tensor")

_HARMLESS = re.compile(
    r"(^|\.)("
    r"rotary_emb\.((original_)?inv_freq|cos_cached|sin_cached)"  # tables that old exports carry along
    r"|position_ids"
    r"|attn\.bias|(attn|self_attn|attention)\.masked_bias"  # the causal mask
    r"|input_(scale|zero_point|global_scale)|activation_scale|output_scale"  # how activations were to be rounded,
    r"|[qkv]_scale|kv_scale|prob_scale|(q|k|v|kv)_zero_point"  # and queries, keys and values; our kernels have own ways
    r"|[kv]_cache_scale"
    r"|_extra_state"
    r"|total_(ops|params)"  # a profiler's counts
    r"|v_head\.summary\.(weight|bias)"  # how good an answer is, for training
    r")$"
)


def harmless(name: str) -> bool:
    """Whether the answer is the same without the tensor `name`."""
    return _HARMLESS.search(name) is not None


def nextn_as_ahead(stored: Mapping[str, Tensor], layers: int) -> Mapping[str, Tensor]:
    """Tensors with those of a head that is stored as one layer more (`num_nextn_predict_layers`) under the names that
    others give such a head. Its copies of the model's tables are left out."""
    at = f"model.layers.{layers}."
    if not any(name.startswith(f"{at}eh_proj.") for name in stored):
        return stored
    found: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        rest = name.removeprefix(at)
        if rest != name and rest.startswith(_COPIES):
            continue
        if rest != name:
            ours = next((new + rest.removeprefix(old) for old, new in _NEXTN.items() if rest.startswith(old)), None)
            name = AHEAD + (ours or f"layers.0.{rest}")
        found[name] = tensor
    return found


def text_alone(stored: str) -> str | None:
    """The name of a tensor, None for heads that guess several tokens ahead (multi-token prediction)."""
    return None if stored.startswith(AHEAD) else stored


def ahead_alone(text_name: Callable[[str], str | None]) -> Callable[[str], str | None]:
    """The names of the tensors of such a head in a graph of its own, with the tables that it shares with the model,
    whose names `text_name` gives; None for all others."""

    def name(stored: str) -> str | None:
        if not stored.startswith(AHEAD):
            ours = text_name(stored)
            return ours if ours is not None and ours.startswith((EMBEDDING, HEAD)) else None
        rest = stored.removeprefix(AHEAD)
        return f"model.{rest}" if rest.startswith(_BARE) else stored

    return name


def notes_of(names: Mapping[str, str | None], *, runs_ahead: bool) -> Iterator[str]:
    """What to tell of the tensors that are no part of the graph. `runs_ahead`: a head that guesses is known."""
    left = sorted(stored for stored, name in names.items() if name is None)
    ahead = [stored for stored in left if stored.startswith(AHEAD)]
    seeing = [stored for stored in left if not stored.startswith(AHEAD)]
    if ahead and not runs_ahead:
        yield f"{listed(ahead)}: the head that guesses tokens ahead is not run"
    if seeing:
        yield f"{listed(seeing)}: the half that sees pictures is not run, text alone is"


def graph_names(
    stored: Iterable[str], family_name: Callable[[str], str | None], *, tied: bool
) -> dict[str, str | None]:
    """The graph's name of each stored tensor, None for what is no part of it, such as a vision tower.

    A base model alone has names without `model.`. Where the head is tied and only the head is stored, it is the
    embedding: tied either way round, as in transformers.
    """
    names = {name: family_name(name) for name in stored}
    ours = [name for name in names.values() if name is not None]
    if not any(name.startswith("model.") for name in ours):
        names = {name: f"model.{to}" if to is not None and to.startswith(_BARE) else to for name, to in names.items()}
        ours = [name for name in names.values() if name is not None]
    if tied and not any(name.startswith(EMBEDDING) for name in ours):
        names = {name: to and re.sub(f"^{re.escape(HEAD)}", EMBEDDING, to) for name, to in names.items()}
    return names
