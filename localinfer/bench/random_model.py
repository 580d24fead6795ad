"""A model of random weights in the product's own checkpoint form: of a known shape, run like any other.

It is kept among the models as `random/<shape>`, so that `list` shows it and `rm` deletes it.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from localinfer.bench.random_values import RandomValues
from localinfer.bench.shapes import shape_config
from localinfer.errors import DoesNotFit, LocalInferError, UsageError, size
from localinfer.formats.compressed import packed_words
from localinfer.formats.durable import sync, write_bytes, write_failed, write_json
from localinfer.formats.layout import INDEX
from localinfer.formats.safetensors import write_safetensors
from localinfer.graph.graph import Graph
from localinfer.graph.ops import Linear
from localinfer.graph.registry import read_graph
from localinfer.hub.cache import made_model, variant_dir
from localinfer.hub.checkpoint import RECORD
from localinfer.hub.locks import locked
from localinfer.hub.model import VARIANTS, LocalModel, variant_of_bits
from localinfer.hub.names import folder_of
from localinfer.paths import models_dir
from localinfer.quantize.plan import TABLE_BITS, TABLES, choose_groups, describe

SEED = 0
Tensors = dict[str, tuple[str, NDArray[Any]]]
OnBytes = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class RandomForm:
    """What to make: a shape and how its weights are stored. What is left open is as `quantize` would make it."""

    shape: str
    bits: Literal[16, 8, 5, 4, 3]
    group: int
    head_bits: int
    head_group: int
    is_usual: bool
    """Whether group and head are what `quantize` would choose."""

    @property
    def name(self) -> str:
        odd = "" if self.is_usual else f"-g{self.group}-h{self.head_bits}"
        return f"random/{self.shape}{odd}"

    @property
    def ref(self) -> str:
        return f"{self.name}:{variant_of_bits(self.bits)}"

    def of(self, linear: Linear, graph: Graph) -> tuple[int, int]:
        """(bits, group) of a matrix of `graph`."""
        if linear in graph.unquantized:
            return 16, 0
        return (self.head_bits, self.head_group) if linear.name in TABLES else (self.bits, self.group)


def parse_form(word: str, group: int | None = None, head_bits: int | None = None) -> RandomForm:
    """`qwen2-1.5b` or `qwen2-1.5b:INT3`; without a form it is INT4. Raises `UsageError` for what cannot be."""
    shape, _, variant = word.partition(":")
    known: dict[str, int] = dict(zip(VARIANTS, (16, 8, 5, 4, 3), strict=False))
    if variant and variant.upper() not in known:
        raise UsageError(
            f"`{variant[:20]}` is no form of weights", hint=f"write `{shape[:40]}:INT4` or one of {', '.join(known)}"
        )
    bits = known[variant.upper() or "INT4"]
    graph = read_graph(shape_config(shape))
    if bits == 16:
        if group is not None or head_bits not in (None, 16):
            raise UsageError(
                "BF16 weights have no groups and no narrower head", hint="leave --group and --head-bits out"
            )
        return RandomForm(shape, 16, 0, 16, 0, True)
    usual = choose_groups(graph, bits, None)[0]
    chosen, table_group, _ = choose_groups(graph, bits, group)
    head = head_bits or TABLE_BITS
    return RandomForm(shape, bits, chosen, head, table_group, chosen == usual and head == TABLE_BITS)  # type: ignore[arg-type]


def planned_bytes(form: RandomForm) -> int:
    """Bytes that the weights of `form` take on disk."""
    graph = read_graph(shape_config(form.shape))
    return sum(_stored_bytes(form.of(linear, graph), linear) for linear in graph.linears())


def find_random(form: RandomForm) -> LocalModel | None:
    """The model of this form, if it was made before."""
    return made_model(form.name, variant_of_bits(form.bits))


def make_random(form: RandomForm, on_progress: OnBytes | None = None) -> LocalModel:
    """The model of `form`, made now unless it is here: whole or not at all. `on_progress(done, total)` counts bytes.

    Raises `DoesNotFit` when the disk has no room.
    """
    final = variant_dir(form.name, variant_of_bits(form.bits))
    with locked(models_dir() / ".locks" / f"{folder_of(form.name)}.lock"):
        if find_random(form) is None:
            _make(form, final, on_progress or (lambda done, total: None))
    made = find_random(form)
    if made is None:
        raise LocalInferError(f"`{form.name}` was made but is not complete", hint="report this, with the command")
    return made


def _make(form: RandomForm, final: Path, on_progress: OnBytes) -> None:
    partial = final.with_name(final.name + ".partial")
    try:
        for left in (partial, final):
            shutil.rmtree(left, ignore_errors=True)  # of an attempt that died: the lock says nobody is at it
        partial.mkdir(parents=True)
        need, free = planned_bytes(form), shutil.disk_usage(partial).free
        if need > free:
            raise DoesNotFit(
                f"random weights of `{form.shape}` need {size(need)}, but {size(free)} is free on the disk",
                hint="free some space, or choose a smaller shape or form",
            )
        _write(form, partial, need, on_progress)
        partial.rename(final)
        sync(final.parent)
    except OSError as error:
        raise write_failed(final, planned_bytes(form), error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(form: RandomForm, folder: Path, total: int, on_progress: OnBytes) -> None:
    config = shape_config(form.shape)
    graph = read_graph(config)
    values = RandomValues(SEED)
    index: dict[str, str] = {}
    units = list(_units(graph))
    done = 0
    for number, (linears, vectors) in enumerate(units, 1):
        tensors: Tensors = {name: ("F32", random_vector(name, shape)) for name, shape in vectors}
        for linear in linears:
            tensors |= _matrix(values, form.of(linear, graph), linear)
        file = f"model-{number:05d}-of-{len(units):05d}.safetensors"
        write_safetensors(folder / file, tensors)
        index |= dict.fromkeys(tensors, file)
        done += sum(_stored_bytes(form.of(linear, graph), linear) for linear in linears)
        on_progress(done, total)
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": index})
    _write_tokenizer(folder, config)
    record = {"format": 1, "kind": "random", "source": {"shape": form.shape, "seed": SEED}}
    write_json(folder / RECORD, record)
    if form.bits != 16:
        config["quantization_config"] = describe(graph, (form.bits, form.group), (form.head_bits, form.head_group))
    write_json(folder / "config.json", config)


def _units(graph: Graph) -> Iterator[tuple[list[Linear], list[tuple[str, tuple[int, ...]]]]]:
    """Matrices and vectors file by file: the tables, then layer by layer."""
    linears, vectors = list(graph.linears()), list(graph.vectors())
    yield [x for x in linears if ".layers." not in x.name], [x for x in vectors if ".layers." not in x[0]]
    for layer in range(graph.spec.layers):
        at = f".layers.{layer}."
        yield [x for x in linears if at in x.name], [x for x in vectors if at in x[0]]


def _matrix(values: RandomValues, form: tuple[int, int], linear: Linear) -> Tensors:
    bits, group = form
    name, rows, cols = linear.name, linear.rows, linear.cols
    if bits == 16:
        return {f"{name}.weight": ("BF16", values.bf16(name, rows, cols))}
    return {
        f"{name}.weight_packed": ("I32", values.packed(name, rows, cols, bits)),
        f"{name}.weight_scale": ("F16", values.scales(f"{name}.scale", rows, cols, group, bits)),
        f"{name}.weight_shape": ("I64", np.array([rows, cols], np.int64)),
    }


def _stored_bytes(form: tuple[int, int], linear: Linear) -> int:
    bits, group = form
    if bits == 16:
        return 2 * linear.rows * linear.cols
    return linear.rows * (4 * packed_words(linear.cols, bits) + 2 * (linear.cols // group))


def random_vector(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Biases of 0 and norms of 1, which change no speed and keep activations sane; convolutions that take a mean."""
    if name.endswith(".bias"):
        return np.zeros(shape, np.float32)
    return np.full(shape, 1 / shape[-1] if len(shape) > 1 else 1, np.float32)


def random_tokens_of(vocab: int) -> list[str]:
    """A word for every id: the letters of all bytes, numbered words, and two specials at the end."""
    letters = [chr(i) for i in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    words = [f"w{i}" for i in range(vocab - len(letters) - 2)]
    return [*letters, *words, "<|begin|>", "<|end|>"]


def _write_tokenizer(folder: Path, config: dict[str, Any]) -> None:
    tokens = random_tokens_of(config["vocab_size"])
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    document = {
        "version": "1.0",
        "added_tokens": [{"id": len(tokens) - 2 + i, "content": word, **flags} for i, word in enumerate(tokens[-2:])],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {word: i for i, word in enumerate(tokens)}, "merges": []},
    }
    write_bytes(folder / "tokenizer.json", json.dumps(document, ensure_ascii=False).encode())
    write_json(folder / "tokenizer_config.json", {"bos_token": tokens[-2], "eos_token": tokens[-1]})
