"""A model that says what it is told to: each token has one that follows it. Real weights of a real family.

Its embedding is the identity, its layers add nothing, and row n of its head looks for the token that n follows. So the
last token of a prompt decides the whole answer, which is the same at temperature 0 on every engine.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.tiny import (
    IM_END,
    Tensor,
    byte_letters,
    tiny_config,
    write_json,
    write_tokenizer,
    write_weights,
)

ROWS = 512
"""Rows of the vocabulary, and numbers of a hidden state."""


def make_scripted(
    path: Path, scripts: Mapping[str, Sequence[str]], template: str, specials: Sequence[str] = ()
) -> Path:
    """A checkpoint in which the text after a prompt that ends in the character `last` is the pieces of
    `scripts[last]`. A piece is one token, and stands in all scripts once; those in `specials` are special tokens."""
    path.mkdir(parents=True, exist_ok=True)
    write_tokenizer(path)
    ids = _add_pieces(path, [piece for pieces in scripts.values() for piece in pieces], specials)
    follows = np.full(ROWS, IM_END)
    for last, pieces in scripts.items():
        chain = [last.encode()[0], *(ids[piece] for piece in pieces), IM_END]
        follows[chain[:-1]] = chain[1:]
    settings = json.loads((path / "tokenizer_config.json").read_text(encoding="utf-8"))
    write_json(path / "tokenizer_config.json", settings | {"chat_template": template, "model_max_length": 4096})
    config = tiny_config("llama", vocab_size=ROWS, hidden_size=ROWS, num_hidden_layers=1, max_position_embeddings=4096)
    write_json(path / "config.json", config)
    write_json(path / "generation_config.json", {"eos_token_id": [IM_END], "do_sample": False})
    write_weights(path, _weights(follows, int(config["intermediate_size"])), "bfloat16")
    return path


def _add_pieces(path: Path, pieces: Sequence[str], specials: Sequence[str]) -> dict[str, int]:
    document = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))
    vocab, letters = document["model"]["vocab"], byte_letters()
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    ids = dict[str, int]()
    for at, piece in enumerate(pieces, len(vocab)):
        assert piece not in ids, f"{piece!r} stands twice"
        ids[piece] = at
        if piece in specials:
            special = piece not in ("<think>", "</think>")  # which are text, in models that have them
            document["added_tokens"].append({"id": at, "content": piece, "special": special, **flags})
            vocab[piece] = at
        else:
            vocab["".join(letters[byte] for byte in piece.encode())] = at
    assert len(vocab) == at + 1 <= ROWS
    write_json(path / "tokenizer.json", document)
    return ids


def _weights(follows: NDArray[np.int64], inner: int) -> dict[str, Tensor]:
    head = np.zeros((ROWS, ROWS), np.float32)
    head[follows, np.arange(ROWS)] = 1
    kv_rows = ROWS // 4 * 2
    at = "model.layers.0."

    def zero(rows: int, columns: int) -> Tensor:
        return np.zeros((rows, columns), np.float32)

    return {
        "model.embed_tokens.weight": np.eye(ROWS, dtype=np.float32),
        "lm_head.weight": head,
        "model.norm.weight": np.ones(ROWS, np.float32),
        f"{at}input_layernorm.weight": np.ones(ROWS, np.float32),
        f"{at}post_attention_layernorm.weight": np.ones(ROWS, np.float32),
        f"{at}self_attn.q_proj.weight": zero(ROWS, ROWS),
        f"{at}self_attn.k_proj.weight": zero(kv_rows, ROWS),
        f"{at}self_attn.v_proj.weight": zero(kv_rows, ROWS),
        f"{at}self_attn.o_proj.weight": zero(ROWS, ROWS),
        f"{at}mlp.gate_proj.weight": zero(inner, ROWS),
        f"{at}mlp.up_proj.weight": zero(inner, ROWS),
        f"{at}mlp.down_proj.weight": zero(ROWS, inner),
    }
