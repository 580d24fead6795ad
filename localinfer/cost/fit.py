"""What a model will take in memory, from its config.json and the headers of its weights alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from localinfer.config import BLOCK_TOKENS, DEFAULT_CONTEXT, PREFILL_CHUNK, kv_blocks, most_rows
from localinfer.cost.machine import available_bytes
from localinfer.graph.memory import Experts, Form, experts, held, packed, packed_bytes
from localinfer.graph.ops import Linear
from localinfer.graph.weights import Checkpoint

RUNTIME_BYTES = 470 * 10**5
"""Python and the libraries, measured."""

WORD_BYTES, MERGE_BYTES = 440, 260
"""What the tokenizer keeps for each entry of the vocabulary and for each of its merges, measured."""

NO_EXPERTS = Experts()

HUGE_PAGE = 2 << 20
SLAB = 16 * HUGE_PAGE
"""Matrices of a quarter of that at most are packed side by side into such pieces of memory (native/core/memory.cpp)."""

PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")

TOKENIZER_LIMIT = 256 << 20
"""Bytes of a tokenizer file that is looked into."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Bytes that a run will take, and whether they are there."""

    total_bytes: int
    weights_bytes: int
    """Packed for the kernels, padding included."""
    kv_bytes: int
    """Keys and values that the cache holds; recurrent states and their snapshots."""
    other_bytes: int
    """Activations, logits, RoPE tables, what loading needs beside that, the tokenizer, ends of huge pages, a head that
    guesses ahead, and the program itself."""
    free_bytes: int
    context: int
    """Tokens of one sequence."""
    in_file_bytes: int = 0
    """Of weights that take no memory, as they stay in their file."""
    experts: Experts = NO_EXPERTS
    """Of `weights_bytes`, what could stay in a file."""

    @property
    def fits(self) -> bool:
        return self.total_bytes <= self.free_bytes


def estimate(
    model: Path | Checkpoint,
    *,
    context: int | None = None,
    parallel: int = 1,
    kv_tokens: int | None = None,
    rows: int = most_rows(PREFILL_CHUNK),
    kv_bits: int | Sequence[int] = 8,
    free_bytes: int | None = None,
    form: Form | None = None,
    page_bytes: int | None = None,
    ahead: bool = True,
) -> Fit:
    """What a checkpoint needs, open or at a path; reads no weights.

    `context` None is what the engine takes then, and `kv_tokens` None the context for each of `parallel` sequences;
    a step holds at most `rows` rows of one. `free_bytes` None asks the machine. `kv_bits` may be given layer by layer;
    with 4 for all, layers that will keep 8 bits are not known yet and come on top. `form` stands for the widths that
    matrices would have after quantizing; `page_bytes` None asks the machine for the size of its pages. `ahead`: as
    `held` has it.
    Raises what opening a checkpoint raises: `NotFound`, `NotSupported`, `Corrupt`.
    """
    checkpoint = model if isinstance(model, Checkpoint) else Checkpoint(model)
    tokens = context_of(checkpoint, context)
    pool = parallel * -(-tokens // BLOCK_TOKENS) * BLOCK_TOKENS if kv_tokens is None else kv_tokens
    blocks = kv_blocks(checkpoint.graph.kv_windows(), kv_tokens=pool, parallel=parallel, rows=rows)
    needs = held(
        checkpoint, context=tokens, kv_blocks=blocks, kv_bits=kv_bits, parallel=parallel, form=form, ahead=ahead
    )
    # What loading needs beside the weights is given back before the cache is written.
    other = max(needs.step, _loading(checkpoint, form) - needs.kv) + needs.ropes
    other += (
        RUNTIME_BYTES
        + needs.ahead
        + _tokenizer(checkpoint.path, checkpoint.spec.vocab_size)
        + _unfilled(checkpoint, form, page_bytes or _page())
    )
    free = available_bytes() if free_bytes is None else free_bytes
    kept = needs.kv + needs.states
    return Fit(
        needs.weights + kept + other, needs.weights, kept, other, free, tokens, needs.in_file, experts(checkpoint, form)
    )


def context_of(checkpoint: Checkpoint, asked: int | None = None) -> int:
    """Tokens of context that the engine takes for it: `asked`, or else its own choice."""
    return asked or min(checkpoint.spec.max_context, DEFAULT_CONTEXT)


def _page() -> int:
    try:
        return 4096 if "[never]" in PAGES.read_text() else HUGE_PAGE
    except OSError:
        return 4096


def _unfilled(checkpoint: Checkpoint, form: Form | None, page: int) -> int:
    """Bytes of the weights' memory that hold nothing, but are there since pages are huge."""
    of = form or checkpoint.form
    sizes = [packed_bytes(linear, *of(linear.name)) for linear in packed(checkpoint, form)]
    held = slab = 0
    for size in sizes:
        if size > SLAB // 4:
            held += -(-size // page) * page
        elif slab + size > SLAB:
            held, slab = held + -(-slab // page) * page, size
        else:
            slab += size
    return held + -(-slab // page) * page - sum(sizes)


def _tokenizer(path: Path, vocab: int) -> int:
    """Bytes of the tokenizer; where its file is not here, one of as many merges as words."""
    merges = _merges(path / "tokenizer.json")
    return WORD_BYTES * vocab + MERGE_BYTES * (vocab if merges is None else merges)


def _merges(file: Path) -> int | None:
    """About how many merges a tokenizer file lists, counted by their quotes: parsing it would take as long as loading.

    None where there is no file.
    """
    try:
        now = file.stat()
        return _counted(file, now.st_size, now.st_mtime_ns) if 0 < now.st_size <= TOKENIZER_LIMIT else None
    except OSError:
        return None


@lru_cache(maxsize=8)  # a file of megabytes, which is asked about once for each width
def _counted(file: Path, _size: int, _changed: int) -> int:
    data = file.read_bytes()
    begin = data.rfind(b'"merges"')
    words = max(0, data.count(b'"', begin) // 2 - 1) if begin >= 0 else 0
    return words // 2 if b"[[" in data[begin : begin + 64].translate(None, b" \n\r\t") else words


def _loading(checkpoint: Checkpoint, form: Form | None) -> int:
    """Bytes read from disk but not yet packed, at worst: those of one fused op, and again while widened. What lies as
    the kernels take it is packed piece by piece."""
    if form is not None:
        return 0

    def reading(linear: Linear) -> int:
        return 0 if checkpoint.on_disk(linear.name) else checkpoint.reading_bytes(linear.name)

    return max(sum(map(reading, together)) for op in checkpoint.graph.ops for together in op.fused())
