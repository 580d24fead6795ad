"""A directory of ours, read back by the compressed-tensors library."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from compressed_tensors.compressors import BaseCompressor, ModelCompressor  # type: ignore[import-untyped]
from compressed_tensors.quantization import (  # type: ignore[import-untyped]
    QuantizationConfig,
    apply_quantization_config,
)
from compressed_tensors.utils import match_name  # type: ignore[import-untyped]
from transformers import CompressedTensorsConfig, LlamaConfig, LlamaForCausalLM

from localinfer.formats.checkpoint_files import StoredTensor, open_tensors
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import quantize_checkpoint
from tests.tiny import Family, make_checkpoint

MATCHES: Callable[[str, str], bool] = match_name
MODEL: Callable[..., Any] = LlamaForCausalLM
APPLY: Callable[..., Any] = apply_quantization_config
PARTS = ("weight_packed", "weight_scale", "weight_shape")


def scheme_of(config: Any, module: str) -> Any:
    """The library's own choice of a scheme for a module: the one group whose targets match."""
    found = [g for g in config.config_groups.values() if any(MATCHES(module, target) for target in g.targets)]
    return found[0] if len(found) == 1 and module not in config.ignore else None


@pytest.mark.parametrize("bits", [8, 5, 4, 3])
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gemma3"])
def test_the_library_reads_our_weights(tmp_path: Path, family: Family, bits: Literal[8, 5, 4, 3]) -> None:
    quantize_checkpoint(make_checkpoint(tmp_path / "source", family), tmp_path / "q", bits=bits)
    settings = json.loads((tmp_path / "q" / "config.json").read_text())["quantization_config"]
    config = QuantizationConfig.model_validate(settings)
    tensors, ours = open_tensors(tmp_path / "q"), Checkpoint(tmp_path / "q")
    modules = [name.removesuffix(".weight_packed") for name in tensors if name.endswith(".weight_packed")]
    assert len(modules) == len(list(ours.graph.linears()))
    negative = 0
    for module in modules:
        state = {part: torch.from_numpy(tensors[f"{module}.{part}"].read()) for part in PARTS}
        negative += int((state["weight_scale"] < 0).sum())
        scheme = scheme_of(config, module)
        library = BaseCompressor.get_value_from_registry(scheme.format).decompress(state, scheme)["weight"]
        expected = ours.matrix(module.removeprefix("language_model.")).astype(np.float16)
        np.testing.assert_array_equal(library.numpy(), expected)  # the library multiplies in the scale's type
    assert negative > 0
    plain = [name for name in tensors if not name.endswith(PARTS)]
    assert not any(scheme_of(config, name.removesuffix(".weight")) for name in plain)


@pytest.mark.filterwarnings("ignore")  # of the libraries' own
@pytest.mark.parametrize("bits", [8, 5, 4, 3])
def test_the_library_runs_our_model(tmp_path: Path, bits: Literal[8, 5, 4, 3]) -> None:
    """The library packs a model's modules by our config, takes our tensors, and gives the logits of our weights.

    (`from_pretrained` itself cannot hold a packed embedding yet: transformers initializes `Embedding.weight`.)
    """
    source = make_checkpoint(tmp_path / "source", "llama", pad_token_id=None)
    quantize_checkpoint(source, tmp_path / "q", bits=bits)
    ours, tensors = Checkpoint(tmp_path / "q"), open_tensors(tmp_path / "q")
    config = LlamaConfig(**{key: value for key, value in ours.config.items() if key != "quantization_config"})
    packed, plain = MODEL(config).float(), MODEL(config).float()
    settings = ours.config["quantization_config"]
    APPLY(packed, QuantizationConfig.model_validate(settings), run_compressed=False)
    ModelCompressor.from_compression_config(CompressedTensorsConfig(**settings)).compress_model(packed)
    missing, unexpected = packed.load_state_dict({name: as_torch(tensor) for name, tensor in tensors.items()})
    assert (missing, unexpected) == ([], [])
    tokens = torch.tensor([[256, 72, 101, 108, 108, 111]])
    with torch.no_grad():
        for linear in ours.graph.linears():
            plain.get_submodule(linear.name).weight.copy_(torch.from_numpy(ours.matrix(linear.name)))
        for name, _ in ours.graph.vectors():
            plain.get_parameter(name).copy_(torch.from_numpy(ours.vector(name)))
        expected = plain(tokens).logits
        seen = packed(tokens).logits
    assert (seen - expected).abs().max() < 5e-3 * expected.abs().max()


def as_torch(tensor: StoredTensor) -> torch.Tensor:
    values = tensor.read()
    return torch.from_numpy(values).view(torch.bfloat16) if tensor.info.dtype == "BF16" else torch.from_numpy(values)
