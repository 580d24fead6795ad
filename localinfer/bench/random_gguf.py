"""The same shape as a GGUF file of random weights, so that another engine can be measured on it.

The layers are in the type that llama.cpp runs fastest at so many bits, embedding and head in the type that llama.cpp's
own quantizer gives them.
"""

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.bench.random_model import SEED, random_tokens_of
from localinfer.bench.random_values import RandomValues
from localinfer.errors import NotSupported
from localinfer.formats.durable import sync, write_failed
from localinfer.formats.gguf_forms import FORMS
from localinfer.formats.json_files import read_object
from localinfer.formats.quantization_said import quantization_said
from localinfer.graph.graph import Graph
from localinfer.graph.ops import Linear
from localinfer.graph.registry import read_graph
from localinfer.graph.scheme import read_scheme
from localinfer.graph.spec import ModelSpec
from localinfer.hub.checkpoint import RECORD

_KNOWN = ("llama", "qwen2", "qwen3", "gemma3_text")

LAYOUTS: dict[str, tuple[int, "np.dtype[Any]", float]] = {
    "Q4_0": (32, np.dtype([("d", "<f2"), ("q", "u1", 16)]), 4.6),
    "Q8_0": (32, np.dtype([("d", "<f2"), ("q", "i1", 32)]), 73.9),
    "Q6_K": (256, np.dtype([("l", "u1", 128), ("h", "u1", 64), ("s", "i1", 16), ("d", "<f2")]), 18.5 * 73.9),
}
"""ggml's block types: weights a block, its bytes, and how far from 0 a weight with `d` = 1 usually is."""


def is_random(folder: Path) -> bool:
    """Whether the model there was made of random weights by us."""
    return (folder / RECORD).is_file() and read_object(folder / RECORD).get("kind") == "random"


def random_gguf(folder: Path) -> Path:
    """The GGUF file beside the random model in `folder`, made now unless it is there.

    Raises `NotSupported` for an architecture that the `gguf` package has no name for, `DoesNotFit` for a full disk.
    """
    config = read_object(folder / "config.json")
    bits = min((bits for bits, _ in read_scheme(quantization_said(folder, config)).forms), default=16)
    body = {16: "BF16", 8: "Q8_0"}.get(bits, "Q4_0")
    path = folder / f"peer-{body}.gguf"
    if not path.exists():
        part = path.with_name(path.name + ".tmp")
        try:
            _write(config, body, part)
            sync(part)
            part.replace(path)
        except OSError as error:
            raise write_failed(path, 0, error) from error
        finally:
            part.unlink(missing_ok=True)
    return path


def head_type(body: str, hidden: int) -> str:
    """What llama.cpp's quantizer makes of embedding and head: Q6_K, or Q8_0 where rows are no whole blocks of it."""
    if body != "Q4_0":
        return body
    return "Q6_K" if hidden % LAYOUTS["Q6_K"][0] == 0 else "Q8_0"


def _write(config: dict[str, Any], body: str, path: Path) -> None:
    import gguf

    graph = read_graph(config)
    kind = config["model_type"]
    if kind not in _KNOWN:
        raise NotSupported(f"no GGUF file can be made of a `{kind}` model", hint="name one: `--against-file FILE.gguf`")
    arch = FORMS[kind].arch
    values = RandomValues(SEED)
    writer = gguf.GGUFWriter(path, arch)
    _describe(writer, graph.spec, config, body)
    tensors = dict(_tensors(graph, arch, body))
    for name, (linear, word) in tensors.items():
        writer.add_tensor_info(name, *_info(linear, word))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, (linear, word) in tensors.items():
        writer.write_tensor_data(_values(values, name, linear, word))
    writer.close()


def _describe(writer: Any, spec: ModelSpec, config: dict[str, Any], body: str) -> None:
    import gguf

    writer.add_file_type(int(gguf.LlamaFileType[f"MOSTLY_{body}"]))
    writer.add_context_length(spec.max_context)
    writer.add_embedding_length(spec.hidden_size)
    writer.add_block_count(spec.layers)
    writer.add_feed_forward_length(spec.intermediate_size)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_value_length(spec.head_dim)
    writer.add_rope_dimension_count(spec.head_dim)
    writer.add_rope_freq_base(float(config["rope_theta"]))
    writer.add_layer_norm_rms_eps(spec.norm_eps)
    if any(spec.windows):
        writer.add_sliding_window(max(spec.windows))
    tokens = random_tokens_of(spec.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 2) + [3, 3])
    writer.add_token_merges(["w 1"])  # there must be one
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)


def _tensors(graph: Graph, arch: str, body: str) -> Iterator[tuple[str, tuple[Linear, str]]]:
    """Every tensor by its GGUF name, with its type; vectors are matrices of one row."""
    import gguf

    number = next(key for key, word in gguf.MODEL_ARCH_NAMES.items() if word == arch)
    names = gguf.get_tensor_name_map(number, graph.spec.layers)

    def named(name: str) -> str:
        stem, _, ending = name.rpartition(".")
        return f"{names.get_name(stem)}.{ending}"

    for linear in graph.linears():
        is_table = ".layers." not in linear.name
        yield named(f"{linear.name}.weight"), (linear, head_type(body, linear.cols) if is_table else body)
    for name, shape in graph.vectors():
        yield named(name), (Linear(name, prod(shape[:-1]), shape[-1]), "F32")


def _info(linear: Linear, word: str) -> tuple[Any, ...]:
    import gguf

    kind = gguf.GGMLQuantizationType[word]
    if word == "F32":
        shape = (linear.cols,) if linear.rows == 1 else (linear.rows, linear.cols)
        return shape, np.dtype(np.float32), 4 * linear.rows * linear.cols, kind
    block, size = gguf.GGML_QUANT_SIZES[kind]
    row = linear.cols // block * size
    return (linear.rows, row), np.dtype(np.uint8), linear.rows * row, kind


def _values(values: RandomValues, name: str, linear: Linear, word: str) -> NDArray[Any]:
    if word == "F32":
        return np.full(linear.cols, 0.0 if name.endswith(".bias") else 1.0, np.float32)
    if word == "BF16":
        return values.bf16(name, linear.rows, linear.cols)
    block, layout, spread = LAYOUTS[word]
    mean = linear.cols**-0.5 / spread
    return values.blocks(name, linear.rows * linear.cols // block, layout, mean)
