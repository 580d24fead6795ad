"""llama.cpp as the second engine, for GGUF files: its arithmetic and its tokenizer, our scheduler, sampler and events.

What is promised of our own arithmetic is not promised here: llama.cpp's results may depend on the batch.
"""

from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.engine import StepEngine
from localinfer.engine.llamacpp_library import Llama
from localinfer.engine.llamacpp_text import LlamaTokenizer
from localinfer.engine.protocol import EngineInfo
from localinfer.errors import Corrupt, LocalInferError, NotSupported
from localinfer.events import OnProgress
from localinfer.formats.gguf import GgufFile
from localinfer.formats.gguf_tokenizer import TEMPLATE, TOOLS_TEMPLATE
from localinfer.kv.lease import Lease
from localinfer.scheduler.scheduler import Scheduler
from localinfer.scheduler.sequence import Work


class LlamaCache:
    """What each of llama.cpp's sequences holds. A new text takes the free one that begins most like it."""

    def __init__(self, llama: Llama, slots: int) -> None:
        self._llama = llama
        self._free = set(range(slots))
        self.held: list[list[int]] = [[] for _ in range(slots)]
        """Tokens for sure in each slot's memory; more may be there after an interrupted step."""
        self.written = [0] * slots
        """One past the last position in each slot's memory; -1 while a step may have been cut short."""

    def room(self, lease: Lease, among: int = 1) -> int:
        """Every slot has its whole context."""
        return 1 << 31

    def admits(self, tokens: Sequence[int], end: int, others: Iterable[tuple[Lease, int]], margin: int) -> bool:
        """Likewise."""
        return True

    def open(self, tokens: Sequence[int], marks: Sequence[int] = ()) -> Lease:
        shared = {slot: min(_common(self.held[slot], tokens), len(tokens) - 1) for slot in self._free}
        slot = max(shared, key=lambda s: (shared[s], -len(self.held[s]), -s))
        self._free.remove(slot)
        return Lease(slot, cached=self._cut(slot, shared[slot]))

    def stop(self, lease: Lease, start: int, end: int) -> int:
        return end

    def reserve(self, lease: Lease, end: int) -> None:
        """The memory is there already."""

    def publish(self, lease: Lease, tokens: Sequence[int], computed: int, accepted: int = 0) -> None:
        held = self.held[lease.slot]
        held.extend(tokens[len(held) : computed])

    def prove(self, lease: Lease) -> None:
        """Nobody else uses what is in a slot."""

    def spoil(self, lease: Lease, tokens: Sequence[int]) -> None:
        self._cut(lease.slot, 0)

    def truncate(self, lease: Lease, tokens: Sequence[int], keep: int) -> int:
        return self._cut(lease.slot, keep)

    def rewind(self, lease: Lease, tokens: Sequence[int], computed: int) -> int:
        return computed

    def close(self, lease: Lease) -> None:
        self._free.add(lease.slot)

    def _cut(self, slot: int, keep: int) -> int:
        """Keep the first `keep` tokens of a slot, or none where the model cannot forget only the end."""
        if self.written[slot] != keep and not self._llama.forget_after(slot, keep):
            keep = 0
            self._llama.forget_after(slot, 0)
        self.written[slot] = keep
        del self.held[slot][keep:]
        return keep


class LlamaRunner:
    """Runs the scheduler's rows with llama.cpp."""

    def __init__(self, llama: Llama, cache: LlamaCache) -> None:
        self._llama, self._cache = llama, cache
        self.hidden = np.empty((0, 0), np.float32)
        n, batch = llama.rows, llama.batch
        self._tokens = np.ctypeslib.as_array(batch.token, (n,))
        self._positions = np.ctypeslib.as_array(batch.pos, (n,))
        self._wanted = np.ctypeslib.as_array(batch.logits, (n,))
        np.ctypeslib.as_array(batch.n_seq_id, (n,))[:] = 1
        self._slots = [-1] * n

    def want_hidden(self) -> None:
        """Never asked: what wants it is refused before."""

    def forward(self, batch: Sequence[Work]) -> NDArray[np.float32]:
        n = outputs = 0
        for work in batch:
            lease = work.sequence.lease
            assert lease is not None
            self._resume(lease.slot, work.start)
            end = n + work.count
            self._tokens[n:end] = work.sequence.tokens[work.start : work.end]
            self._positions[n:end] = range(work.start, work.end)
            self._wanted[n:end] = 0
            for row in range(n, end):
                if self._slots[row] != lease.slot:
                    self._llama.batch.seq_id[row][0] = self._slots[row] = lease.slot
            if work.samples:
                self._wanted[end - 1] = 1
                outputs += 1
            n = end
            self._cache.written[lease.slot] = -1
        self._llama.decode(n)
        for work in batch:
            assert work.sequence.lease is not None
            self._cache.written[work.sequence.lease.slot] = work.end
        return self._llama.logits(outputs) if outputs else np.empty((0, self._llama.vocab), np.float32)

    def close(self) -> None:
        self._llama.close()

    def _resume(self, slot: int, start: int) -> None:
        """If the last step was cut short, take back what it wrote."""
        if self._cache.written[slot] != start and not self._llama.forget_after(slot, start):
            raise LocalInferError(
                "this model's memory cannot take back the interrupted step", hint="cancel the request and send it again"
            )


def open_llamacpp(
    path: Path,
    config: EngineConfig,
    *,
    name: str,
    on_progress: OnProgress | None = None,
    library: type[Llama] = Llama,
    **how: bool,
) -> StepEngine:
    """Load a GGUF file. Its header is checked by us first: llama.cpp trusts it more than it should.

    `how`: with `flash_attention` or not, whichever is faster on the processor; 8-bit keys and values need it. With
    `one_cache` all sequences share one, else each has its own; that, too, only changes the speed.

    Raises as `open_engine` does; `NotSupported` also for drafts, which need results that do not depend on the batch.
    """
    if config.draft not in ("off", "auto"):
        raise NotSupported(
            f"drafts (`{config.draft}`) would change the text on the llamacpp backend", hint="use --draft off"
        )
    library.load_library()
    file = GgufFile(path)
    arch = file.text("general.architecture")
    longest = file.integer(f"{arch}.context_length")
    context = config.choose_context(longest)
    llama = library(file.path, config, context, on_progress, **how)
    try:
        tokenizer = LlamaTokenizer(llama.lib, llama.model)
        if llama.vocab < 1:
            raise Corrupt(f"{path}: has no vocabulary", hint="use another GGUF file of the model")
        cache = LlamaCache(llama, config.parallel)
        runner = LlamaRunner(llama, cache)
    except BaseException:
        llama.close()
        raise
    info = EngineInfo(
        model=name,
        backend=llama.backend,
        isa=_isa(llama.lib),
        threads=llama.threads,
        kv_bits=config.kv_bits,
        bits=_bits(llama.lib, file),
        weight_bytes=int(llama.lib.llama_model_size(llama.model)),
        kv_bytes=_kv_bytes(file, arch, context * config.parallel, config.kv_bits),
        why="asked for by --backend",
        threads_why="as asked" if config.threads else "one per physical core",
        notes=("drafts are off: on this backend they could change the text",) if config.draft == "auto" else (),
    )
    return StepEngine(
        info=info,
        tokenizer=tokenizer,
        chat_template=_template(file, TEMPLATE),
        tools_template=_template(file, TOOLS_TEMPLATE),
        default_sampling=SamplingParams(),
        context=context,
        longest=longest,
        vocab=llama.vocab,
        scheduler=Scheduler(cache, parallel=config.parallel, chunk=config.prefill_chunk),
        runner=runner,
    )


def _template(file: GgufFile, key: str) -> str | None:
    found = file.metadata.get(key)
    return found if isinstance(found, str) else None


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many leading tokens are equal."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _isa(lib: Any) -> str:
    """The widest instructions that llama.cpp says it uses."""
    said = lib.llama_print_system_info().decode("ascii", "replace")
    for word in ("AVX512", "AVX2", "AVX", "NEON"):
        if f"{word} = 1" in said:
            return word.lower()
    return "scalar"


def _bits(lib: Any, file: GgufFile) -> str:
    """GGUF's own word for its quantization, such as `Q4_1`."""
    kind = file.metadata.get("general.file_type")
    said = lib.llama_ftype_name(kind) if isinstance(kind, int) else None
    return said.decode("ascii", "replace").split(" ")[0] if said else "GGUF"


def _kv_bytes(file: GgufFile, arch: str, tokens: int, bits: int) -> int:
    """Bytes of keys and values, as the header's sizes give them; 0 for models without plain attention."""
    try:
        heads = file.integer(f"{arch}.attention.head_count")
        width = file.integer(f"{arch}.embedding_length") // max(heads, 1)
        k = file.integer(f"{arch}.attention.key_length", width)
        v = file.integer(f"{arch}.attention.value_length", width)
        values = (k + v) * file.integer(f"{arch}.attention.head_count_kv", heads) * file.integer(f"{arch}.block_count")
    except LocalInferError:
        return 0
    return values * tokens * (34 if bits == 8 else 64) // 32
