"""How config.json says the weights were quantized: compressed-tensors, GPTQ, AWQ, or floats of eight or four bits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from localinfer.formats.compressed import INTEGERS, MINIMA, MXFP4
from localinfer.formats.quantization_said import Said
from localinfer.graph.fields import Fields

BITS = (3, 4, 5, 8)
GPTQ_BITS = (3, 4, 8)
GROUPS = (32, 64, 128)
LONGEST_BLOCK = 1 << 16

Method = Literal["none", "compressed-tensors", "gptq", "awq", "fp8", "mxfp4"]


@dataclass(frozen=True, slots=True)
class Integers:
    """Integers of `bits` bits with a scale for every `group` columns (0: for a whole row)."""

    bits: int
    group: int
    symmetric: bool = True

    def __str__(self) -> str:
        return f"{self.bits} bits by {self.group or 'row'}{'' if self.symmetric else ' with zero points'}"


@dataclass(frozen=True, slots=True)
class Scheme:
    """All that `quantization_config` announces."""

    method: Method = "none"
    integers: frozenset[Integers] = frozenset()
    minima: bool = False
    """Whether some weights have minima, in our own form."""
    mxfp4: bool = False
    """Whether some weights are 4-bit floats that share powers of two by 32."""
    floats: bool = False
    """Whether some weights are e4m3 floats."""
    block: tuple[int, int] | None = None
    """Rows and columns that share a scale, where floats are scaled so."""
    stored_less: int = 0
    """How much less than they are GPTQ's zero points are stored."""
    may_be_v2: bool = False
    """GPTQ's second version is not named, but writers forget it: where weights are symmetric, zero points tell."""

    @property
    def forms(self) -> frozenset[tuple[int, int]]:
        """(bits, group) of the integers."""
        return frozenset((one.bits, one.group) for one in self.integers)


def read_scheme(said: Said | None) -> Scheme:
    """The scheme of what is said of quantization, `Scheme()` for plain weights. Raises `NotSupported` for any other."""
    if said is None:
        return Scheme()
    file, values = said
    settings = Fields(values, "quantization_config." if file == "config.json" else "", file=file)
    known: Mapping[str, Callable[[Fields], Scheme]] = {
        "compressed-tensors": _compressed,
        "gptq": _gptq,
        "awq": _awq,
        "fp8": _fp8,
        "mxfp4": lambda _: Scheme("mxfp4", mxfp4=True),
    }
    _one_of(settings, "quant_method", tuple(known))
    return known[settings.values["quant_method"]](settings)


def _compressed(settings: Fields) -> Scheme:
    formats = (INTEGERS, "int-quantized", "float-quantized", "naive-quantized", MINIMA, MXFP4)
    _one_of(settings, "format", (*formats, "mixed-precision"))
    settings.table("sparsity_config").refuse("format", "dense")
    # How keys and values were to be cached (`kv_cache_scheme`) is not read: our cache has its own forms.
    groups = settings.table("config_groups")
    integers, minima, mxfp4, floats, block = set(), False, False, False, None
    for name in groups.values:
        group = groups.table(name)
        if group.has("format"):
            _one_of(group, "format", formats)
        group.refuse("output_activations")
        # How activations were to be rounded is not read: the kernels round them by smaller groups.
        weights = group.table("weights")
        _one_of(weights, "type", ("int", "float"))
        weights.refuse("dynamic", False)
        minima |= group.values.get("format") == MINIMA
        if (group if group.has("format") else settings).values["format"] == MXFP4:
            _require_mxfp4(weights)
            mxfp4 = True
        elif weights.values["type"] == "float":
            floats = True
            block = _float_block(weights) or block
        else:
            integers.add(_integers(weights))
    return Scheme("compressed-tensors", frozenset(integers), minima, mxfp4, floats, block)


def _require_mxfp4(weights: Fields) -> None:
    """Raise `NotSupported` for other 4-bit floats than MXFP4."""
    known = {"type": "float", "num_bits": 4, "strategy": "group", "group_size": 32, "symmetric": True}
    for name, value in known.items():
        _one_of(weights, name, (value,))
    weights.refuse("scale_dtype", "torch.uint8")


def _integers(weights: Fields) -> Integers:
    _one_of(weights, "strategy", ("group", "channel"))
    _one_of(weights, "num_bits", BITS)
    weights.refuse("actorder", False, "static", "weight")
    bits = weights.integer("num_bits", 3, 8)
    symmetric = weights.flag("symmetric", default=True)
    if bits == 8:
        _one_of(weights, "symmetric", (True,))
    if weights.values["strategy"] == "channel":
        return Integers(bits, 0, symmetric)
    _one_of(weights, "group_size", GROUPS)
    return Integers(bits, weights.integer("group_size", 32, 128), symmetric)


def _float_block(weights: Fields) -> tuple[int, int] | None:
    _one_of(weights, "num_bits", (8,))
    weights.refuse("symmetric", True)
    _one_of(weights, "strategy", ("tensor", "channel", "block"))
    return _block(weights, "block_structure") if weights.values["strategy"] == "block" else None


def _gptq(settings: Fields) -> Scheme:
    _one_of(settings, "bits", GPTQ_BITS)
    _one_of(settings, "group_size", (-1, *GROUPS))
    settings.refuse("dynamic", {})
    settings.refuse("pack_dtype", "int32")
    settings.refuse("is_marlin_format", False)
    settings.refuse("checkpoint_format", "gptq", "gptq_v2")
    bits, symmetric = settings.integer("bits", 3, 8), settings.flag("sym", default=True)
    if bits == 8:
        _one_of(settings, "sym", (True, None))
    version = settings.values.get("checkpoint_format")
    group = max(0, settings.integer("group_size", -1, 128))
    return Scheme(
        "gptq",
        frozenset([Integers(bits, group, symmetric)]),
        stored_less=0 if version == "gptq_v2" else 1,
        may_be_v2=version != "gptq_v2" and symmetric,
    )


def _awq(settings: Fields) -> Scheme:
    _one_of(settings, "bits", (4,))
    _one_of(settings, "group_size", (-1, *GROUPS))
    settings.refuse("version", "gemm", "GEMM")
    settings.refuse("zero_point", True)
    return Scheme("awq", frozenset([Integers(4, max(0, settings.integer("group_size", -1, 128)), False)]))


def _fp8(settings: Fields) -> Scheme:
    settings.refuse("fmt", "e4m3")
    return Scheme("fp8", floats=True, block=_block(settings, "weight_block_size"))


def _block(settings: Fields, name: str) -> tuple[int, int] | None:
    value = settings.values.get(name)
    if value is None:
        return None
    valid = isinstance(value, list) and all(type(size) is int and 1 <= size <= LONGEST_BLOCK for size in value)
    if not valid or len(value) != 2:
        raise settings.bad(name, "a list of two sizes")
    return value[0], value[1]


def _one_of(settings: Fields, name: str, known: tuple[object, ...]) -> None:
    value = settings.values.get(name)
    if any(type(value) is type(k) and value == k for k in known):
        return
    raise settings.unknown(name, value, known)
