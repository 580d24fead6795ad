"""Adapters (LoRA, in PEFT's form) merged into a model's weights: W + weight x alpha / r x B A, in float32."""

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt, NotFound, NotSupported, UsageError
from localinfer.events import OnProgress
from localinfer.formats.checkpoint_files import StoredTensor, open_tensors
from localinfer.formats.durable import write_bytes, write_json
from localinfer.formats.json_files import TOKENIZER_LIMIT, read_bytes, read_object
from localinfer.formats.layout import INDEX
from localinfer.formats.safetensors import SafetensorsFile, write_safetensors
from localinfer.graph.stored import require_finite, widen
from localinfer.graph.tensors import FLOATS
from localinfer.graph.weights import Checkpoint
from localinfer.quantize.origin import copied
from localinfer.text import one_line

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SHARD_BYTES = 1 << 30
MOST_RANK = 4096

MEANT = {
    *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "base_model_name_or_path"),
    "target_modules",
}
"""Fields of an adapter's configuration that are followed."""

OF_TRAINING = {
    *("peft_type", "peft_version", "task_type", "auto_mapping", "revision", "inference_mode", "runtime_config"),
    *("lora_dropout", "init_lora_weights", "exclude_modules", "layers_to_transform"),
    *("layers_pattern", "megatron_core", "qalora_group_size", "ensure_weight_tying"),
}
"""Fields that change nothing of weights that are there."""

NOTHING: tuple[object, ...] = (None, False, "none", "", [], {})
"""Values of other fields that ask for nothing."""

_AGAIN = "the adapter belongs to another model, or is damaged"
_FLOATS_ONLY = "use weights in bf16, f16 or f32"
_TENSOR = re.compile(r"base_model\.model\.([A-Za-z0-9_.]{1,300})\.lora_([AB])(?:\.default)?\.weight")


@dataclass(frozen=True, slots=True)
class Delta:
    """What is added to one stored matrix: `scale` x `up` [rows, r] x `down` [r, cols]."""

    down: StoredTensor
    up: StoredTensor
    scale: float

    def added(self) -> NDArray[np.float32]:
        down, up = _floats(self.down), _floats(self.up)
        return np.float32(self.scale) * (up @ down)


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter that fits: its folder, and what it adds to each stored tensor."""

    path: Path
    deltas: Mapping[str, Delta]


def base_of(folder: Path) -> str:
    """What the adapter in `folder` says that it was trained on; empty if nothing. Raises `NotFound`, `NotSupported`."""
    return str(_config(folder).get("base_model_name_or_path") or "")


def _config(folder: Path) -> Mapping[str, Any]:
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise NotFound(f"{folder} has no {CONFIG} with {WEIGHTS}", hint="give the folder of a PEFT adapter")
    config = read_object(folder / CONFIG)
    _check_fields(folder, config)
    return config


def read_adapter(folder: Path, weight: float, checkpoint: Checkpoint) -> Adapter:
    """The adapter in `folder`, checked against the headers of `checkpoint`; no weights are read.

    Raises `NotFound` (no adapter), `NotSupported` (not LoRA, a field or tensor that is not followed, a quantized base),
    `Corrupt` (shapes that are not the base's, NaN in a scale).
    """
    config = _config(folder)
    pairs = _pairs(folder)
    _require_targets(folder, config, pairs)
    scales = {module: _scale(folder, module, pair, config, weight) for module, pair in pairs.items()}
    if checkpoint.scheme.method != "none":
        raise NotSupported(
            f"{folder.name} can be merged into floats alone, and these weights are quantized",
            hint="name the floats, as `NAME:BF16`; `localinfer quantize NAME --adapter DIR --name NEW` makes it small",
        )
    deltas, files = dict[str, Delta](), open_tensors(checkpoint.path)
    for module, pair in sorted(pairs.items()):
        stored = _stored(folder, module, pair, files)
        deltas[stored] = Delta(pair["A"], pair["B"], scales[module])
    return Adapter(folder, deltas)


def _pairs(folder: Path) -> dict[str, dict[str, StoredTensor]]:
    """The matrices A and B of each module. Raises `NotSupported` for any other, `Corrupt` for one without its pair."""
    file = SafetensorsFile(folder / WEIGHTS)
    pairs: dict[str, dict[str, StoredTensor]] = {}
    for name, info in file.tensors.items():
        found = _TENSOR.fullmatch(name)
        if found is None:
            raise NotSupported(
                f"{folder.name}: tensor `{one_line(name, 100)}` is no matrix of LoRA",
                hint="only plain LoRA is merged: no DoRA, no biases, no modules that were saved whole",
            )
        pairs.setdefault(found[1], {})[found[2]] = StoredTensor(file, name, info)
    if not pairs:
        raise Corrupt(f"{folder / WEIGHTS} holds no matrix", hint="train or download the adapter again")
    for module, pair in sorted(pairs.items()):
        if pair.keys() != {"A", "B"}:
            raise Corrupt(f"{folder.name}: `{module}` has one matrix of two", hint=_AGAIN)
    return pairs


def _require_targets(folder: Path, config: Mapping[str, Any], modules: Collection[str]) -> None:
    """Raise `Corrupt` where a list of `target_modules` does not name each module that there are matrices of, or none of
    those that it names has any. A pattern is not tried, as it could take for ever."""
    targets = config.get("target_modules")
    if not isinstance(targets, list):
        return
    for target in targets:
        if not isinstance(target, str):
            raise Corrupt(f"{folder.name}: `target_modules` holds {one_line(repr(target), 40)}", hint=_AGAIN)
    for module in sorted(modules):
        if not any(module == target or module.endswith(f".{target}") for target in targets):
            named = one_line(", ".join(targets[:5]), 80) or "nothing"
            raise Corrupt(
                f"{folder.name} has matrices of `{module}`, but its `target_modules` are {named}", hint=_AGAIN
            )


def merge(checkpoint: Checkpoint, adapters: Sequence[Adapter], dest: Path, on_progress: OnProgress) -> None:
    """Write the model with all `adapters` added to the folder `dest`: what is added to in float32, all else as it is.
    Raises `DoesNotFit` when the disk is full, `Corrupt` for NaN and infinity."""
    dest.mkdir(parents=True)
    for name in ("config.json", *copied(checkpoint.path)):
        (dest / name).parent.mkdir(exist_ok=True)
        write_bytes(dest / name, read_bytes(checkpoint.path / name, TOKENIZER_LIMIT))
    stored = open_tensors(checkpoint.path)
    total, done = sum(tensor.info.nbytes for tensor in stored.values()), 0
    shards, where = list(_shards(stored)), dict[str, str]()
    for number, names in enumerate(shards, 1):
        tensors = dict[str, tuple[str, NDArray[Any]]]()
        for name in names:
            tensors[name] = _merged(name, stored[name], adapters)
            done += stored[name].info.nbytes
            on_progress("merging", done, total)
        file = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_safetensors(dest / file, tensors)
        where |= dict.fromkeys(names, file)
    if len(shards) > 1:
        write_json(dest / INDEX, {"metadata": {"total_size": total}, "weight_map": where})


def _merged(name: str, tensor: StoredTensor, adapters: Sequence[Adapter]) -> tuple[str, NDArray[Any]]:
    deltas = [adapter.deltas[name] for adapter in adapters if name in adapter.deltas]
    if not deltas:
        return tensor.info.dtype, tensor.read()
    values = _floats(tensor)
    for delta in deltas:
        values = values + delta.added()
    require_finite(name, values)
    return "F32", values


def _floats(tensor: StoredTensor) -> NDArray[np.float32]:
    values = tensor.read()
    require_finite(tensor.name, values)
    return widen(values) if values.dtype == np.uint16 else values.astype(np.float32, copy=False)


def _shards(stored: Mapping[str, StoredTensor]) -> Iterator[list[str]]:
    names, held = list[str](), 0
    for name, tensor in stored.items():
        if names and held + tensor.info.nbytes > SHARD_BYTES:
            yield names
            names, held = [], 0
        names.append(name)
        held += tensor.info.nbytes
    yield names


def _check_fields(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise `NotSupported` for another kind of adapter, and for a field that asks for what is not done here."""
    if config.get("peft_type") != "LORA":
        raise NotSupported(
            f"{folder.name} is an adapter of the kind {str(config.get('peft_type'))[:40]!r}", hint="only LoRA is merged"
        )
    for name in sorted(config.keys() - MEANT - OF_TRAINING):
        if not any(type(config[name]) is type(nothing) and config[name] == nothing for nothing in NOTHING):
            raise NotSupported(
                f"{folder.name}: `{one_line(name, 60)}` is {one_line(repr(config[name]), 60)}, which is not followed",
                hint="merge the adapter with its own tool",
            )


def _scale(
    folder: Path, module: str, pair: Mapping[str, StoredTensor], config: Mapping[str, Any], weight: float
) -> float:
    """By what the product of a pair is multiplied. Raises as `read_adapter` does for what is wrong with the pair."""
    down, up = pair["A"].info, pair["B"].info
    rank = _by_pattern(config.get("rank_pattern"), module, config.get("r"))
    if type(rank) is not int or not 0 < rank <= MOST_RANK:
        raise Corrupt(f"{folder.name}: the rank of `{module}` is {str(rank)[:40]}", hint=_AGAIN)
    if len(down.shape) != 2 or len(up.shape) != 2 or not down.shape[0] == up.shape[1] == rank:
        shapes = f"{list(up.shape)} x {list(down.shape)}"
        raise Corrupt(f"{folder.name}: `{module}` is {shapes}, but its rank is {rank}", hint=_AGAIN)
    if not {down.dtype, up.dtype} <= set(FLOATS):
        raise NotSupported(f"{folder.name}: `{module}` is stored as no float", hint=_FLOATS_ONLY)
    alpha = _by_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha"))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise Corrupt(f"{folder.name}: `lora_alpha` of `{module}` is {str(alpha)[:40]}", hint=_AGAIN)
    return weight * alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _stored(folder: Path, module: str, pair: Mapping[str, StoredTensor], stored: Mapping[str, StoredTensor]) -> str:
    """The stored tensor that a module's pair belongs to. Raises as `read_adapter` does where it does not fit."""
    name = next((one for one in (f"{module}.weight", f"{module.removeprefix('model.')}.weight") if one in stored), "")
    if not name:
        raise Corrupt(f"{folder.name}: the model has no `{module}`", hint=_AGAIN)
    base, down, up = stored[name].info, pair["A"].info, pair["B"].info
    if base.shape != (up.shape[0], down.shape[1]):
        shapes = f"{list(up.shape)} x {list(down.shape)}"
        raise Corrupt(f"{folder.name}: `{module}` is {shapes}, but the model's is {list(base.shape)}", hint=_AGAIN)
    if base.dtype not in FLOATS:
        raise NotSupported(f"the model's `{module}` is stored as no float", hint=_FLOATS_ONLY)
    return name


def _by_pattern(patterns: Any, module: str, usual: Any) -> Any:
    """What holds for `module`: of the first pattern that it ends with, else what is usual. Raises `NotSupported` for
    patterns that are more than names, as one could take for ever."""
    if not isinstance(patterns, dict | None):
        raise NotSupported("`rank_pattern` or `alpha_pattern` is no object", hint="merge it with its own tool")
    for name, value in (patterns or {}).items():
        plain = name.removeprefix("^")
        if not re.fullmatch(r"[A-Za-z0-9_.]{1,300}", plain):
            told = f"the pattern {one_line(name, 60)!r} is no plain name"
            raise NotSupported(told, hint="merge the adapter with its own tool")
        if module == plain or (plain == name and module.endswith(f".{plain}")):
            return value
    return usual


def weighted(word: str) -> tuple[Path, float]:
    """What `DIR` or `DIR=WEIGHT` says. Raises `UsageError` for a weight that is no number."""
    folder, equals, said = word.rpartition("=")
    if not equals or Path(word).expanduser().is_dir():
        return Path(word).expanduser(), 1.0
    try:
        weight = float(said)
    except ValueError:
        weight = math.nan
    if not abs(weight) <= 100:
        raise UsageError(f"the weight of {one_line(word, 100)} is no number up to 100", hint="write `DIR=0.5`")
    return Path(folder).expanduser(), weight
