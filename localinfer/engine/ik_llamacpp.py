"""ik_llama.cpp as an engine to compare with: its C library under the names that llama.cpp's has by now.

It left llama.cpp in 2024, and much is still called as it was then. Its Python package binds few of the calls we need.
"""

import ctypes
from importlib import import_module
from typing import Any

from localinfer.engine.llamacpp_library import Llama, listen_to
from localinfer.errors import NotSupported
from localinfer.extras import install_command

_POINTER, _INT = ctypes.c_void_p, ctypes.c_int32
_MORE: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "llama_get_logits": (ctypes.POINTER(ctypes.c_float), (_POINTER,)),
    "llama_kv_cache_seq_rm": (ctypes.c_bool, (_POINTER, _INT, _INT, _INT)),
    "llama_log_set": (None, (_POINTER, _POINTER)),
    "llama_model_size": (ctypes.c_uint64, (_POINTER,)),
    "llama_print_system_info": (ctypes.c_char_p, ()),
    "llama_set_abort_callback": (None, (_POINTER, _POINTER, _POINTER)),
    "llama_token_get_attr": (_INT, (_POINTER, _INT)),
    "llama_token_to_piece_vocab": (_INT, (_POINTER, _INT, ctypes.c_char_p, _INT, _INT, ctypes.c_bool)),
    "llama_vocab_bos": (_INT, (_POINTER,)),
    "llama_vocab_eos": (_INT, (_POINTER,)),
    "llama_vocab_get_add_bos": (ctypes.c_bool, (_POINTER,)),
    "llama_vocab_is_eog": (ctypes.c_bool, (_POINTER, _INT)),
    "llama_vocab_type": (ctypes.c_int, (_POINTER,)),
}
"""What the package does not bind, from ik_llama.cpp's `llama.h`: what is returned, and the arguments."""


class IkLibrary:
    """The library with llama.cpp's names. One model at a time: some of its calls ask for the model, not the words."""

    llama_log_callback = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

    def __init__(self) -> None:
        self._bound = import_module("ik_llama_cpp._ctypes_api")
        self._model: Any = None
        for name, (returned, arguments) in _MORE.items():
            function = getattr(self._bound._lib, name)
            function.restype, function.argtypes = returned, list(arguments)
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bound, name)

    def llama_model_get_vocab(self, model: Any) -> Any:
        self._model = model
        return self._bound.llama_model_get_vocab(model)

    def llama_model_free(self, model: Any) -> None:
        self._bound.llama_free_model(model)

    def llama_get_memory(self, ctx: Any) -> Any:
        return ctx

    def llama_memory_seq_rm(self, ctx: Any, sequence: int, start: int, end: int) -> bool:
        return bool(self.llama_kv_cache_seq_rm(ctx, sequence, start, end))

    def llama_vocab_get_attr(self, _: Any, token: int) -> int:
        return int(self.llama_token_get_attr(self._model, token))

    def llama_token_to_piece(self, *arguments: Any) -> int:
        return int(self.llama_token_to_piece_vocab(*arguments))

    def llama_tokenize(self, _: Any, *arguments: Any) -> int:
        return int(self._bound.llama_tokenize(self._model, *arguments))

    def llama_ftype_name(self, _: int) -> None:
        """It has no names for them."""


class IkLlama(Llama):
    """One GGUF file in ik_llama.cpp, its rows interleaved for the processor while it is loaded."""

    backend = "ik_llamacpp"
    product = "ik_llama.cpp"

    @staticmethod
    def load_library() -> Any:
        try:
            lib = IkLibrary()
        except (ImportError, OSError, AttributeError) as error:
            raise NotSupported(
                f"ik_llama.cpp is not installed ({error})",
                hint=f"run `{install_command('ik_llamacpp')}`",
            ) from error
        lib.llama_backend_init()
        listen_to(lib)
        return lib

    def model_params(self) -> Any:
        params = self.lib.llama_model_default_params()
        params.repack_tensors, params.use_mmap = True, False  # what is mapped cannot be interleaved
        return params

    def context_params(self, *, flash_attention: bool, one_cache: bool) -> Any:
        params = self.lib.llama_context_default_params()
        params.n_ubatch = 512
        params.flash_attn = flash_attention
        return params
