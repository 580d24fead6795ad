"""Bugs to plant in the kernels: what in which file becomes what, and where it must be noticed."""

import shutil
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.cuda.build import NATIVE


@dataclass(frozen=True)
class Mutation:
    name: str
    file: str
    old: str
    new: str
    program: str
    seen: str
    """Part of what the program, or its sanitizer, says."""
    kind: str = "plain"
    bundle: str = ""
    """Those of one bundle are planted together, which saves time: each is in a kernel of its own."""

    def plant(self, kernels: Path) -> None:
        text = (kernels / self.file).read_text()
        assert text.count(self.old) == 1, f"{self.name}: not there exactly once: {self.old}"
        (kernels / self.file).write_text(text.replace(self.old, self.new))


def planted(mutations: Iterable[Mutation], folder: Path) -> Path:
    """`folder`, which then has the kernels with these bugs."""
    kernels = folder / "cuda"
    kernels.mkdir(parents=True)
    for path in [*(NATIVE / "cuda").glob("*.cuh"), NATIVE / "cuda/args.h"]:
        shutil.copy(path, kernels)
    (folder / "emu").symlink_to(NATIVE / "emu")
    for mutation in mutations:
        mutation.plant(kernels)
    return folder


RACE = "WARNING: ThreadSanitizer: data race"
OUTSIDE = "ERROR: AddressSanitizer: heap-buffer-overflow"

ROWS = (
    Mutation(
        "no barrier before the inverse rms is made",
        "rows.cuh",
        "LI_SHARED(float, inverse, 1);\n  sync_block();",
        "LI_SHARED(float, inverse, 1);",
        "rows",
        "ready of",
    ),
    Mutation(
        "no barrier before the inverse rms is read",
        "rows.cuh",
        "  sync_block();\n  return inverse[0];",
        "  return inverse[0];",
        "rows",
        "ready of",
    ),
    Mutation(
        "no barrier before the row is quantized",
        "rows.cuh",
        "  sync_block();\n  const int tiles",
        "  const int tiles",
        "rows",
        "ready of",
        bundle="rows",
    ),
    Mutation(
        "a tile too many",
        "rows.cuh",
        "if (tile * kTileColumns >= a.columns) return;",
        "if (tile * kTileColumns > a.columns) return;",
        "rows",
        "gated of 640",
        bundle="rows",
    ),
    Mutation(
        "a column too many",
        "rows.cuh",
        "if (c >= a.columns) return;",
        "if (c > a.columns) return;",
        "rows",
        "softcap of 300",
        bundle="rows",
    ),
    Mutation(
        "the scale of a group that is padding",
        "quantize.cuh",
        "group >= to.groups",
        "group > to.groups",
        "rows",
        "groups of 32, 1 planes",
    ),
    Mutation(
        "half and block change places",
        "quantize.cuh",
        "half * 16 + block * 4",
        "half * 4 + block * 8",
        "rows",
        "q[",
    ),
    Mutation(
        "halves are rounded up",
        "math.cuh",
        "(x * inverse + round_magic()) - round_magic()",
        "floorf(x * inverse + 0.5f)",
        "rows",
        "q[",
    ),
    Mutation(
        "the stream is not scaled",
        "rows.cuh",
        "* a.post_norm[c]) * a.scale;",
        "* a.post_norm[c]);",
        "rows",
        "times 0.7",
    ),
    Mutation(
        "what is given is forgotten",
        "rows.cuh",
        "v[i] = v[i] * a.given[static_cast<Index>(m) * a.given_ld + c];",
        "v[i] = v[i];",
        "rows",
        ", given",
        bundle="inputs",
    ),
    Mutation(
        "a part too many",
        "rows.cuh",
        "if (part >= a.parts) return;",
        "if (part > a.parts) return;",
        "rows",
        "layer_inputs of 6",
        bundle="inputs",
    ),
    Mutation("exp takes NaN for a number", "math.cuh", "if (x != x) return x;", "", "rows", "softcap of"),
    Mutation(
        "the tree of sums the other way round",
        "math.cuh",
        "v += shfl_xor(v, 8);\n  v += shfl_xor(v, 4);\n  v += shfl_xor(v, 2);\n  return v + shfl_xor(v, 1);",
        "v += shfl_xor(v, 1);\n  v += shfl_xor(v, 2);\n  v += shfl_xor(v, 4);\n  return v + shfl_xor(v, 8);",
        "rows",
        "norm",
    ),
)

HEADS = (
    Mutation(
        "values are not normed",
        "kv.cuh",
        "if (a.v_norm != nullptr) norm_head(value, a.v_norm, a.eps, a.head_dim);",
        "",
        "heads",
        "v norm",
    ),
    Mutation(
        "nobody waits for the bias",
        "kv.cuh",
        "from[d] + bias[d] : from[d];\n  sync_warp();",
        "from[d] + bias[d] : from[d];",
        "heads",
        "rope_append of",
    ),
    Mutation(
        "the norm does not wait for those who still sum",
        "kv.cuh",
        "rms_inverse(head, head_dim, eps);\n  sync_warp();",
        "rms_inverse(head, head_dim, eps);",
        "heads",
        RACE,
        "tsan",
    ),
    Mutation(
        "the next step of a rotation does not wait",
        "kv.cuh",
        "head[i + h] = a - b;\n    }\n    sync_warp();",
        "head[i + h] = a - b;\n    }",
        "heads",
        "4 bits",
    ),
    Mutation(
        "nibbles of -8 to 8", "kv.cuh", "rounded(x, 7.0f / absmax)", "rounded(x, 8.0f / absmax)", "heads", "4 bits"
    ),
)

LINEAR = (
    Mutation(
        "the offset is forgotten",
        "linear.cuh",
        "if (W::kOffset != 0) total -=",
        "if (W::kOffset == 99) total -=",
        "linear",
        "linear_i4_1,",
        bundle="linear",
    ),
    Mutation(
        "a group that is padding is taken",
        "linear.cuh",
        "(left < groups ? left : groups)",
        "groups",
        "linear",
        "linear_i3_4,",
        bundle="rows of linear",
    ),
    Mutation(
        "dots are added up before they are there",
        "linear.cuh",
        "    sync_block();\n    const int left",
        "    const int left",
        "linear",
        "linear_i8_2,",
    ),
    Mutation(
        "all stages have one buffer",
        "linear.cuh",
        "buffer ^= kBuffer",
        "buffer ^= 0",
        "linear",
        RACE,
        "tsan",
    ),
    Mutation(
        "a plane counts 256",
        "linear.cuh",
        "total = 255 * total +",
        "total = 256 * total +",
        "linear",
        "linear_i8x16_8",
        bundle="linear",
    ),
    Mutation(
        "a column too many", "linear.cuh", "8 * k + i >= a", "8 * k + i > a", "linear", "linear_bf16_1", bundle="linear"
    ),
    Mutation(
        "the other nibble",
        "linear.cuh",
        ">> 4 * half & 15",
        ">> 4 * (1 - half) & 15",
        "linear",
        "embed of int4",
        bundle="linear",
    ),
    Mutation(
        "a row too many",
        "linear.cuh",
        "if (row >= a.rows)",
        "if (row > a.rows)",
        "linear",
        "written past the end",
        bundle="rows of linear",
    ),
    Mutation(
        "a row that is not there is read",
        "linear.cuh",
        "return row < a.rows ? row",
        "return row <= a.rows ? row",
        "linear",
        OUTSIDE,
        "asan",
    ),
)

ATTEND = (
    Mutation(
        "the window has a token more",
        "attend.cuh",
        "? position + 1 - window",
        "? position - window",
        "attend",
        "attend_",
    ),
    Mutation(
        "nobody waits for the query",
        "attend.cuh",
        "query.scale = a.q_scale[one];\n    }\n    sync_warp();",
        "query.scale = a.q_scale[one];\n    }",
        "attend",
        "attend_4",
    ),
    Mutation(
        "the next query comes while the last is read",
        "attend.cuh",
        "nullptr, a.scale, a.head_dim, a.softcap};\n    sync_warp();",
        "nullptr, a.scale, a.head_dim, a.softcap};",
        "attend",
        RACE,
        "tsan",
    ),
    Mutation(
        "splits are merged from the last",
        "attend.cuh",
        "for (int kv_split = first + 1; kv_split <= last; ++kv_split)",
        "for (int kv_split = last; kv_split > first; --kv_split)",
        "attend",
        "merge after",
        bundle="attend",
    ),
    Mutation("nibbles are not moved back", "attend.cuh", "dot - 8 * sum", "dot", "attend", "attend_4", bundle="attend"),
    Mutation(
        "NaN is the largest score",
        "attend.cuh",
        "seen && score > part.m ? score",
        "seen && !(score <= part.m) ? score",
        "attend",
        "attend_16",
        bundle="attend",
    ),
)

MUTATIONS = (*ROWS, *HEADS, *LINEAR, *ATTEND)


def bundles() -> list[tuple[Mutation, ...]]:
    together: dict[str, list[Mutation]] = defaultdict(list)
    for mutation in MUTATIONS:
        together[mutation.bundle or f"{mutation.program} {mutation.name}"].append(mutation)
    return [tuple(bundle) for bundle in together.values()]
