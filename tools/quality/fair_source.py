"""A fair 16-bit source from a quantized GGUF file, to compare quantizers with.

    python -m tools.quality.fair_source FILE.gguf OUT [--seed 0]

Weights that were quantized once lie on a grid, and whoever quantizes to the same grid again loses nothing. So each
dequantized weight is moved, uniformly and seeded, within half its own quantization step, then rounded to bf16. OUT gets
`model/` (our form), `bf16.gguf` and `f16.gguf` (llama.cpp's), all of the same numbers; what no quantizer touches stays.
"""

import argparse
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import NotSupported, UsageError
from localinfer.formats.bf16 import to_bf16
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_import import import_gguf

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

# Bytes of a block, and weights in it, of the types whose block begins with its float16 step.
_PLAIN = {"Q4_0": (18, 32), "Q4_1": (20, 32), "Q5_0": (22, 32), "Q5_1": (24, 32), "Q8_0": (34, 32)}
_K = {"Q4_K": 144, "Q5_K": 176}
_Q6_K = 210
_EXACT = ("F32", "F16", "BF16")


def steps(kind: str, raw: Bytes, shape: tuple[int, ...]) -> Floats:
    """The distance between neighbouring values that a weight of this type could have, for each weight of a tensor."""
    if kind in _EXACT:
        return np.zeros(shape, np.float32)
    if kind in _PLAIN:
        size, count = _PLAIN[kind]
        found = np.repeat(_halves(raw.reshape(-1, size), 0), count)
    elif kind in _K:
        from gguf.quants import Q4_K

        blocks = raw.reshape(-1, _K[kind])
        scales, _ = Q4_K.get_scale_min(blocks[:, 4:16])
        found = np.repeat(_halves(blocks, 0)[:, None] * scales.reshape(len(blocks), 8), 32)
    elif kind == "Q6_K":
        blocks = raw.reshape(-1, _Q6_K)
        scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
        found = np.repeat(_halves(blocks, 208)[:, None] * scales, 16)
    else:
        raise NotSupported(f"the steps of {kind} are not known here", hint="use a file of Q4_0 … Q8_0, Q4_K … Q6_K")
    return np.abs(found).astype(np.float32).reshape(shape)


def _halves(blocks: Bytes, at: int) -> Floats:
    return np.ascontiguousarray(blocks[:, at : at + 2]).view(np.float16)[:, 0].astype(np.float32)


def dithered(name: str, values: Floats, step: Floats, seed: int) -> Floats:
    """`values`, each moved within half its step and rounded to bf16. The same for the same name and seed."""
    if not step.any():
        return values
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    moved = values + (rng.random(values.shape, np.float32) - np.float32(0.5)) * step
    return (to_bf16(moved).astype(np.uint32) << 16).view(np.float32)


def make(source: Path, out: Path, seed: int) -> None:
    """Write `model/`, `bf16.gguf` and `f16.gguf` into the new folder `out`."""
    if out.exists():
        raise UsageError(f"{out} is there already", hint="remove it, or choose another folder")
    file = GgufFile(source)
    out.mkdir(parents=True)
    tensors = {name: dithered(name, file.dequantize(name), _steps_of(file, name), seed) for name in file.tensors}
    write_gguf(source, out / "bf16.gguf", tensors, "BF16")
    write_gguf(source, out / "f16.gguf", tensors, "F16")
    import_gguf(out / "bf16.gguf", out / "model")


def _steps_of(file: GgufFile, name: str) -> Floats:
    tensor = file.tensors[name]
    raw = np.fromfile(file.path, np.uint8, tensor.end - tensor.begin, offset=tensor.begin)
    return steps(tensor.type, raw, tensor.shape)


def write_gguf(source: Path, dest: Path, tensors: dict[str, Floats], kind: str) -> None:
    """The metadata of `source` with other tensors: vectors as float32, matrices as `kind`."""
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType

    reader = GGUFReader(source)
    writer: Any = GGUFWriter(dest, str(reader.fields["general.architecture"].contents()))
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    writer.add_file_type(LlamaFileType.MOSTLY_BF16 if kind == "BF16" else LlamaFileType.MOSTLY_F16)
    for name, values in tensors.items():
        if values.ndim == 1:
            writer.add_tensor(name, values)
        elif kind == "BF16":
            writer.add_tensor(name, to_bf16(values).view(np.uint8), raw_dtype=GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(name, values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    make(given.source, given.out, given.seed)


if __name__ == "__main__":
    main()
