"""A Hugging Face directory as the graph sees it: every tensor present, of the right shape, finite when read."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.checkpoint_files import StoredTensor, open_tensors
from localinfer.formats.compressed import packed_words
from localinfer.formats.json_files import read_object
from localinfer.graph.ops import Graph, Linear
from localinfer.graph.registry import family_for
from localinfer.graph.scheme import BITS, read_scheme
from localinfer.graph.spec import ModelSpec
from localinfer.graph.stored import Bf16Linear, IntLinear, StoredLinear, narrow, require_finite, widen

_AGAIN = "download the model again; its weights do not belong to its config.json"
_FLOATS = ("BF16", "F16", "F32")
_UNUSED = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")  # buffers that old exports carry along


class Checkpoint:
    """A model on disk. Opening reads config.json and the headers of the weights, and compares them; no weights.

    Raises `NotFound` (no such model), `NotSupported` (architecture, quantization, dtype) and `Corrupt` (a config
    field, a tensor missing, of another shape, or that the config does not describe).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config: dict[str, Any] = read_object(path / "config.json")
        family = family_for(self.config.get("model_type"))
        self.spec: ModelSpec = family.spec(self.config)
        self.graph: Graph = family.graph(self.spec)
        self.scheme = read_scheme(self.config)
        """(bits, group) pairs that config.json announces; empty for plain weights."""
        self._tensors: dict[str, StoredTensor] = {}
        for stored, tensor in open_tensors(path).items():
            name = family.tensor_name(stored)
            if name is not None:
                self._tensors[name] = tensor
        self._used: set[str] = set()
        self._linears = {linear.name: linear for linear in self.graph.linears()}
        self._forms = {linear.name: self._form(linear) for linear in self._linears.values()}
        for name, size in self.graph.vectors():
            self._require(name, (size,), _FLOATS)
        self._refuse_extra()

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that the graph uses, as stored."""
        return sum(self._tensors[name].info.nbytes for name in self._used)

    @property
    def identity(self) -> str:
        """A hash of the configuration and of the weight files' names, sizes and times: another model, another hash."""
        files = {tensor.file for tensor in self._tensors.values()}
        told = sorted((file.path.name, file.size, file.modified_ns) for file in files)
        return hashlib.sha256(json.dumps([self.config, told], sort_keys=True).encode()).hexdigest()[:32]

    def stored_bytes(self, name: str) -> int:
        """Bytes that the matrix `name` takes on disk, with its scales."""
        parts = (f"{name}.weight", f"{name}.weight_packed", f"{name}.weight_scale")
        return sum(self._tensors[part].info.nbytes for part in parts if part in self._used)

    def form(self, name: str) -> tuple[int, int]:
        """(bits, group) of the matrix `name`, from the headers alone; (16, 0) for plain weights of any float type."""
        return self._forms[name]

    def on_disk(self, name: str) -> tuple[StoredTensor, StoredTensor | None] | None:
        """Where the values and the scales of the matrix `name` lie, if they lie as the kernels take them; else None.

        Nobody has looked at the numbers yet: whoever reads them must refuse NaN and infinity, as `linear` does.
        """
        if self._forms[name][0] == 16:
            stored = self._tensors[f"{name}.weight"]
            return (stored, None) if stored.info.dtype == "BF16" else None
        scales = self._tensors[f"{name}.weight_scale"]
        if scales.info.dtype != "F16":
            return None
        self._check_weight_shape(name)
        return self._tensors[f"{name}.weight_packed"], scales

    def linear(self, name: str) -> StoredLinear:
        """The matrix `name` (without `.weight`) as the kernels take it. float16 and float32 are rounded to bfloat16."""
        bits, group = self._forms[name]
        if bits == 16:
            stored = self._tensors[f"{name}.weight"]
            if stored.info.dtype == "BF16":
                values: NDArray[np.uint16] = stored.read()
                require_finite(f"{name}.weight", values)
                return Bf16Linear(values)
            return Bf16Linear(narrow(f"{name}.weight", self._float32(f"{name}.weight")))
        self._check_weight_shape(name)
        scales = self._float32(f"{name}.weight_scale")
        with np.errstate(over="ignore"):
            halves = scales.astype(np.float16)
        require_finite(f"{name}.weight_scale", halves)
        return IntLinear(bits, group, self._linears[name].cols, self._tensors[f"{name}.weight_packed"].read(), halves)

    def matrix(self, name: str) -> NDArray[np.float32]:
        """The matrix `name` in float32 [rows, cols], as exact as it is stored."""
        return self._float32(f"{name}.weight") if self._forms[name][0] == 16 else self.linear(name).float32()

    def vector(self, name: str) -> NDArray[np.float32]:
        """The vector `name` (the full name of its tensor) in float32."""
        return self._float32(name)

    def _float32(self, name: str) -> NDArray[np.float32]:
        values = self._tensors[name].read()
        require_finite(name, values)
        return widen(values) if values.dtype == np.uint16 else values.astype(np.float32, copy=False)

    def _form(self, linear: Linear) -> tuple[int, int]:
        """Which of the two forms the headers show, with every shape compared."""
        packed = self._tensors.get(f"{linear.name}.weight_packed")
        if packed is None:
            self._require(f"{linear.name}.weight", (linear.rows, linear.cols), _FLOATS)
            return 16, 0
        for extra in ("weight_zero_point", "weight_g_idx"):
            if f"{linear.name}.{extra}" in self._tensors:
                raise NotSupported(
                    f"`{linear.name}` has a {extra}; only symmetric weights in their own order are supported",
                    hint="use the unquantized model and run `localinfer quantize` on it",
                )
        by_words = {(linear.rows, packed_words(linear.cols, bits)): bits for bits in BITS}
        if packed.info.shape not in by_words:
            raise _wrong_shape(f"{linear.name}.weight_packed", packed.info.shape, (linear.rows, linear.cols), "packed")
        bits = by_words[packed.info.shape]
        groups = {(linear.rows, linear.cols // g): g for b, g in self.scheme if b == bits and linear.cols % g == 0}
        scale = self._tensors.get(f"{linear.name}.weight_scale")
        if scale is None:
            raise _missing(f"{linear.name}.weight_scale")
        if scale.info.shape not in groups:
            announced = ", ".join(f"{b} bits by {g}" for b, g in sorted(self.scheme)) or "none"
            raise Corrupt(
                f"tensor `{linear.name}.weight_scale` is {list(scale.info.shape)} for a matrix of {bits} bits "
                f"[{linear.rows}, {linear.cols}], which is no scheme of config.json ({announced})",
                hint=_AGAIN,
            )
        self._require(f"{linear.name}.weight_packed", packed.info.shape, ("I32",))
        self._require(f"{linear.name}.weight_scale", scale.info.shape, _FLOATS)
        self._require(f"{linear.name}.weight_shape", (2,), ("I64", "I32"))
        return bits, groups[scale.info.shape]

    def _require(self, name: str, shape: tuple[int, ...], dtypes: tuple[str, ...]) -> None:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise _missing(name)
        if tensor.info.shape != shape:
            raise _wrong_shape(name, tensor.info.shape, shape)
        if tensor.info.dtype not in dtypes:
            raise NotSupported(
                f"tensor `{name}` has dtype {tensor.info.dtype}, which is not supported; known: {', '.join(dtypes)}",
                hint="use a repository with weights in bf16, f16 or f32",
            )
        self._used.add(name)

    def _check_weight_shape(self, name: str) -> None:
        shape = self._linears[name].rows, self._linears[name].cols
        said = tuple(int(x) for x in self._tensors[f"{name}.weight_shape"].read())
        if said != shape:
            raise Corrupt(f"tensor `{name}.weight_shape` says {list(said)}, not {list(shape)}", hint=_AGAIN)

    def _refuse_extra(self) -> None:
        """A tensor that the graph does not use would be silently left out of the answer: refuse it."""
        unused = sorted(n for n in self._tensors.keys() - self._used if not n.endswith(_UNUSED))
        # A tied model may carry a copy of its embedding as the head; config.json decides.
        extra = [n for n in unused if not (self.spec.tied and n.startswith("lm_head."))]
        if extra:
            more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
            raise Corrupt(f"tensor `{extra[0]}`{more} is there, but config.json does not describe it", hint=_AGAIN)


def _missing(name: str) -> Corrupt:
    return Corrupt(f"tensor `{name}` is missing", hint=_AGAIN)


def _wrong_shape(name: str, seen: tuple[int, ...], wanted: tuple[int, ...], how: str = "") -> Corrupt:
    asked = f"{list(wanted)} {how}".strip()
    return Corrupt(f"tensor `{name}` is {list(seen)}, but config.json asks for {asked}", hint=_AGAIN)
