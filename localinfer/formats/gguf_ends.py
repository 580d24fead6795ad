"""Which tokens of a GGUF file end a reply: those it names, and those that llama.cpp knows by their text."""

from collections.abc import Mapping, Sequence

_NAMED = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
_ENDS = {
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
    *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>"),
    *("<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~["),
}
_FILL_IN = {
    "fim_pad": {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"},
    "fim_rep": {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"},
    "fim_sep": {"<|file_sep|>"},
}
"""Of models that fill in code: where the next file would begin. Known by text where the file does not name them."""
_CHANNELS = (
    {"<|return|>", "<|call|>"},
    {"<|return|>", "<|calls|>"},
    {"<|flush|>", "<|call|>"},
    {"<|flush|>", "<|calls|>"},
)
"""Models with one of these pairs end a part of a reply with `<|end|>`, not all of it."""
_PLAIN_S = {"<|tool_response>", "<|plamo:eos|>"}
"""Models with one of these have a `</s>` that is text."""


def end_tokens(tokens: Sequence[str], ids: Mapping[str, int]) -> tuple[int, ...]:
    """Ids, ascending, whatever types the tokens have; `ids` are those the file names (`eos`, `eot`, `fim_pad`, …)."""
    wanted = _ENDS.union(*(texts for name, texts in _FILL_IN.items() if name not in ids))
    ends = {index for index, token in enumerate(tokens) if token in wanted}
    ends |= {ids[name] for name in _NAMED if name in ids}
    words = {tokens[index] for index in ends}
    gone = {"<|end|>"} if any(pair <= words for pair in _CHANNELS) else set()
    gone |= {"</s>"} if words & _PLAIN_S else set()
    return tuple(sorted(index for index in ends if tokens[index] not in gone))
