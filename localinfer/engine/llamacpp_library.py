"""The C library inside llama-cpp-python: the calls that we use, and what it said when one of them failed."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from localinfer import native
from localinfer.config import EngineConfig
from localinfer.errors import DoesNotFit, LocalInferError, NotSupported
from localinfer.events import OnProgress
from localinfer.extras import install_command

_Q8_0, _F16 = 8, 1  # ggml_type
_ERROR = 4  # ggml_log_level
_ROWS_WORTH_INTERRUPTING = 32
"""Steps shorter than this end soon enough by themselves; asking at every node of the graph would slow them down."""


_SAID: list[str] = []
"""What llama.cpp complained of since the last call. It has one ear for all models, and it may speak at any time."""


class Llama:
    """One loaded GGUF file with its context: the C library's calls that we use, and what it said when one failed."""

    backend: Literal["llamacpp", "ik_llamacpp"] = "llamacpp"
    product = "llama.cpp"

    def __init__(
        self,
        path: Path,
        config: EngineConfig,
        context: int,
        on_progress: OnProgress | None,
        *,
        flash_attention: bool = True,
        one_cache: bool = False,
    ) -> None:
        if config.kv_bits == 4:
            raise NotSupported("the llamacpp backend has no 4-bit cache here", hint="use `--kv-bits 8` or 16 with it")
        self.lib = lib = self.load_library()
        self.said = _SAID
        self.said.clear()
        self._noted: list[int] = []
        # Callbacks live as long as C may call them.
        self._report = lib.llama_progress_callback(_progress(on_progress, path.stat().st_size))
        self._ask = lib.ggml_abort_callback(self._abort)
        self._never = lib.ggml_abort_callback()
        self.threads = config.threads or native.physical_cores()
        self.rows = config.prefill_chunk + config.parallel
        self.model: Any = None
        self.ctx: Any = None
        self.batch: Any = None
        try:
            self._load(path)
            self._make_context(path, config, context, flash_attention, one_cache)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def load_library() -> Any:
        """The C library, listening. Raises `NotSupported` if it is not installed."""
        return load_library()

    def model_params(self) -> Any:
        """How weights are loaded: repacked for this CPU, as llama.cpp does by default."""
        return self.lib.llama_model_default_params()

    def context_params(self, *, flash_attention: bool, one_cache: bool) -> Any:
        """How a context attends, and whether its sequences share a cache."""
        params = self.lib.llama_context_default_params()
        params.flash_attn_type = int(flash_attention)
        params.kv_unified = one_cache
        return params

    def _load(self, path: Path) -> None:
        params = self.model_params()
        params.n_gpu_layers = 0
        params.check_tensors = True
        params.progress_callback = self._report
        self.model = self.lib.llama_model_load_from_file(str(path).encode(), params)
        if not self.model:
            raise NotSupported(
                f"{self.product} cannot load {path.name}: {self.reason()}", hint="use another GGUF file of the model"
            )
        self.vocab = int(self.lib.llama_vocab_n_tokens(self.lib.llama_model_get_vocab(self.model)))

    def _make_context(
        self, path: Path, config: EngineConfig, context: int, flash_attention: bool, one_cache: bool
    ) -> None:
        params = self.context_params(flash_attention=flash_attention, one_cache=one_cache)
        params.n_ctx = -(-context // 256) * 256 * config.parallel
        params.n_batch = max(self.rows, 512)
        params.n_seq_max = config.parallel
        params.n_threads = params.n_threads_batch = self.threads
        params.type_k = params.type_v = _Q8_0 if config.kv_bits == 8 else _F16
        self.ctx = self.lib.llama_init_from_model(self.model, params)
        if not self.ctx:
            raise DoesNotFit(
                f"{self.product} cannot make a context of {context} tokens for {path.name}: {self.reason()}",
                hint="lower the context (-c), or try --kv-bits 16",
            )
        self.memory = self.lib.llama_get_memory(self.ctx)
        self.batch = self.lib.llama_batch_init(self.rows, 0, 1)

    def decode(self, rows: int) -> None:
        """Run the first `rows` rows of `batch`. `KeyboardInterrupt` may come out of it, also in a long step."""
        self.batch.n_tokens = rows
        self.said.clear()
        if rows < _ROWS_WORTH_INTERRUPTING:
            self.lib.llama_set_abort_callback(self.ctx, self._never, None)
            code = self.lib.llama_decode(self.ctx, self.batch)
        else:
            self.lib.llama_set_abort_callback(self.ctx, self._ask, None)
            with _ctrl_c_noted() as self._noted:
                code = self.lib.llama_decode(self.ctx, self.batch)
        if code:
            raise LocalInferError(
                f"{self.product} failed with code {code}: {self.reason()}", hint="try a smaller context"
            )

    def forget_after(self, slot: int, position: int) -> bool:
        """Take the tokens from `position` on out of the slot's memory; False if the model cannot do that."""
        return bool(self.lib.llama_memory_seq_rm(self.memory, slot, position, -1))

    def logits(self, rows: int) -> NDArray[np.float32]:
        """Logits [rows, vocab] of the rows that asked for them; llama.cpp's own memory, valid until the next step."""
        pointer = self.lib.llama_get_logits(self.ctx)
        return np.ctypeslib.as_array(pointer, (rows, self.vocab))

    def reason(self) -> str:
        """The first thing llama.cpp complained of; what follows is who passed it on."""
        return " ".join(self.said[0].split())[:300] if self.said else "it gave no reason"

    def close(self) -> None:
        if self.batch is not None:
            self.lib.llama_batch_free(self.batch)
        if self.ctx:
            self.lib.llama_free(self.ctx)
        if self.model:
            self.lib.llama_model_free(self.model)
        self.batch = self.ctx = self.model = None

    def _abort(self, _: object) -> bool:
        return bool(self._noted)  # being Python code, this is where signals are seen while C code runs


@contextmanager
def _ctrl_c_noted() -> Iterator[list[int]]:
    """Note Ctrl-C in the list given instead of raising; raise at the end what would have been raised.

    An exception cannot pass through C code. Other threads than the main one never see Ctrl-C anyway.
    """
    before = signal.getsignal(signal.SIGINT)
    noted: list[int] = []
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield noted
        return
    signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)
    if noted:
        before(signal.SIGINT, None)


def load_library() -> Any:
    """The low-level half of llama-cpp-python. Raises `NotSupported` if it is not installed."""
    try:
        lib = import_module("llama_cpp.llama_cpp")
    except ImportError as error:
        raise NotSupported(
            f"the llamacpp backend is not installed ({error})",
            hint=f"run `{install_command('llamacpp')}`",
        ) from error
    lib.llama_backend_init()
    listen_to(lib)
    return lib


def listen_to(lib: Any) -> None:
    """Keep what the library complains of for `Llama.reason`; all else that it says is dropped."""
    lib.llama_log_set(_listener(lib), None)


@cache
def _listener(lib: Any) -> Any:
    """Made once and kept for ever: llama.cpp would call one that is gone."""

    def listen(level: int, text: bytes, _: object) -> None:
        if level == _ERROR:
            _SAID.append(text.decode("utf-8", "replace"))

    return lib.llama_log_callback(listen)


def _progress(on_progress: OnProgress | None, total: int) -> Callable[[float, object], bool]:
    def report(share: float, _: object) -> bool:
        if on_progress is not None:
            on_progress("weights", int(share * total), total)
        return True

    return report
