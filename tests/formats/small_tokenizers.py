"""Small real tokenizers of every kind we read, trained here, with the library's own object beside."""

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Library

CORPUS = [
    "The capital of France is Paris. Hello world, hello! 1234567890 don't we'll\n\n\tdef f(x):\n        return x**2",
    "Ünïcödé größer déjà-vu 日本語のテキスト 漢字 emoji 🎉🎉👩‍👩‍👧 العربية हिन्दी <tag> [INST] a|b im_start im_end",
] * 8
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTE_LEVEL = ("gpt2", "smollm", "qwen")
SENTENCEPIECE = ("prepend", "first", "always", "never", "gemma", "unigram")
KINDS = (*BYTE_LEVEL, *SENTENCEPIECE)
SPM_SPECIALS = ["<unk>", "<s>", "</s>", "<start_of_turn>"]


def build(kind: str) -> Library:
    """A trained tokenizer with a few special tokens."""
    return _byte_level(kind) if kind in BYTE_LEVEL else _sentencepiece(kind)


def save(kind: str, directory: Path, config: dict[str, Any] | None = None) -> Library:
    """Write tokenizer.json (and tokenizer_config.json) into `directory`; returns the library's tokenizer."""
    library = build(kind)
    library.save(str(directory / "tokenizer.json"))
    names = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    if kind in SENTENCEPIECE:
        names = {"bos_token": "<s>", "eos_token": "</s>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(names if config is None else config))
    return library


def _byte_level(kind: str) -> Library:
    library = Library(models.BPE())
    steps: dict[str, Any] = {
        "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
        "smollm": pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
        "qwen": pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(QWEN), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        ),
    }
    library.pre_tokenizer = steps[kind]
    library.decoder = decoders.ByteLevel()
    if kind == "qwen":
        library.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    library.train_from_iterator(CORPUS, trainer)
    library.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    library.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True), AddedToken("word", single_word=True)])
    return library


def _sentencepiece(kind: str) -> Library:
    if kind == "unigram":
        return _unigram()
    library = Library(models.BPE(unk_token="<unk>", fuse_unk=True))
    strip: list[Any] = [decoders.Strip(" ", 1, 0)]
    spaces = normalizers.Replace(" ", "▁")
    if kind == "gemma":
        library.normalizer, strip = spaces, []
        library.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    elif kind == "prepend":
        library.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    else:
        library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind, split=False)
        strip = [] if kind == "never" else strip
    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=SPM_SPECIALS + pieces, show_progress=False, limit_alphabet=60
    )
    library.train_from_iterator(CORPUS, trainer)
    library.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    document = json.loads(library.to_str())
    # The trainer takes the byte pieces as special tokens; in real files they are plain pieces of the vocabulary.
    document["added_tokens"] = [t for t in document["added_tokens"] if t["content"] in SPM_SPECIALS]
    document["model"]["byte_fallback"] = True
    library = Library.from_str(json.dumps(document))
    if kind == "gemma":
        library.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("<b>", normalized=False)])
    bos = library.token_to_id("<s>")
    library.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    return library


def _unigram() -> Library:
    library = Library(models.Unigram())
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=SPM_SPECIALS, unk_token="<unk>", show_progress=False
    )
    library.train_from_iterator(CORPUS, trainer)
    return library
