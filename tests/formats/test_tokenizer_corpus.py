"""Broken and hostile tokenizer.json files: each loads and works, or gives a clear error, whatever the library does."""

import copy
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localinfer.errors import Corrupt, NotSupported
from localinfer.formats.tokenizer import Tokenizer
from localinfer.formats.tokenizer_json import repeats_a_group
from tests.formats.small_tokenizers import QWEN, build, save

VALUES: list[Any] = [
    None, True, -1, 0, 1.5, 1 << 40, 10**30, "", "x", "\0", "é" * 600, [], [[]], {}, {"type": "Nothing"}, ["a", 1],
]  # fmt: skip
Change = Callable[[dict[str, Any]], None]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything in a document, large lists and vocabularies sampled."""
    yield path
    if isinstance(value, dict):
        for key in list(value)[:12]:
            yield from places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(3, len(value))):
            yield from places(value[index], (*path, index))


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    document = copy.copy(document)
    document[path[0]] = put(document[path[0]], path[1:], value)
    return document


def try_it(directory: Path) -> str:
    """ "loads", or the name of the clear error; anything else fails the test."""
    try:
        tokenizer = Tokenizer(directory)
        ids = tokenizer.encode_text("Hello world é 🎉\n\n 123")
        assert all(0 <= i < tokenizer.vocab_size for i in ids)
        tokenizer.decode([*ids, 0, 1, 99999])
        tokenizer.encode_rendered("<|im_start|>a<s>b")
    except (Corrupt, NotSupported) as error:
        return type(error).__name__
    return "loads"


@pytest.mark.parametrize("kind", ["qwen", "prepend", "first", "unigram"])
def test_two_hundred_mutations(kind: str, tmp_path: Path) -> None:
    document = json.loads(build(kind).to_str())
    save(kind, tmp_path)
    assert try_it(tmp_path) == "loads"
    rng = random.Random(kind)
    every = [(path, value) for path in places(document) for value in VALUES]
    seen: dict[str, int] = {}
    for path, value in rng.sample(every, 200):
        (tmp_path / "tokenizer.json").write_text(json.dumps(put(document, path, value)))
        result = try_it(tmp_path)
        seen[result] = seen.get(result, 0) + 1
    assert seen["Corrupt"] > 40, seen


@pytest.mark.parametrize("kind", ["smollm", "gemma"])
def test_mutated_bytes(kind: str, tmp_path: Path) -> None:
    save(kind, tmp_path)
    good = (tmp_path / "tokenizer.json").read_bytes()
    rng = random.Random(kind)
    for _ in range(100):
        data = bytearray(good)
        for _ in range(rng.choice([1, 1, 4])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "tokenizer.json").write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        try_it(tmp_path)


def drop(key: str) -> Change:
    return lambda document: document.pop(key)


def model(**changed: Any) -> Change:
    return lambda document: document["model"].update(changed)


def added(**changed: Any) -> Change:
    return lambda document: document["added_tokens"][1].update(changed)


def precompiled(charsmap: str | None) -> dict[str, Any]:
    return {"type": "Precompiled", "precompiled_charsmap": charsmap}


CASES: dict[str, tuple[Change, str]] = {
    "no model": (drop("model"), "`model` must be an object"),
    "no vocabulary": (model(vocab={}), r"`model\.vocab` must be an object that is not empty"),
    "vocabulary a list": (model(vocab=["a"]), r"`model\.vocab` must be"),
    "id as text": (model(vocab={"a": "1"}), r"`model\.vocab` has an id"),
    "id negative": (model(vocab={"a": -1}), r"`model\.vocab` has an id"),
    "id far out": (model(vocab={"a": 1 << 31}), r"`model\.vocab` has an id"),
    "id twice": (model(vocab={"a": 1, "b": 1}), r"`model\.vocab` gives one id to two"),
    "no merges": (model(merges=None, type="BPE"), r"`model\.merges` must be a list"),
    "merge of one": (model(merges=["abc"]), "the tokenizer failed"),
    "merge of three": (model(merges=["a b c"]), "the tokenizer failed"),
    "merge of numbers": (model(merges=[[1, 2]]), "the tokenizer failed"),
    "merge unknown": (model(merges=["Ġ nowhere"]), "the tokenizer failed"),
    "merge to nowhere": (model(merges=["z z"]), "the tokenizer failed"),
    "added a number": (lambda d: d.update(added_tokens=5), "`added_tokens` must be a list"),
    "added twice": (lambda d: d["added_tokens"].append(d["added_tokens"][0]), "has one token or id twice"),
    "added empty": (added(content=""), "`added_tokens` holds"),
    "added endless": (added(content="x" * 5000), "`added_tokens` holds"),
    "added id 2**40": (added(id=1 << 40), "has the id 1099511627776"),
    "added id text": (added(id="1"), "has the id 1"),
    "added id of another": (added(id=300), "disagree on its id"),
    "added content of another": (added(content="a"), "disagree on its id"),
    "precompiled null": (lambda d: d.update(normalizer=precompiled(None)), "charsmap"),
    "precompiled junk": (lambda d: d.update(normalizer=precompiled("AAAA")), ""),
    "unknown normalizer": (lambda d: d.update(normalizer={"type": "Nonesuch"}), "the tokenizer failed"),
    "bad regex": (lambda d: d.update(pre_tokenizer=split("(")), "the tokenizer failed"),
}  # fmt: skip


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(("change", "words"), CASES.values(), ids=CASES.keys())
def test_named_cases(tmp_path: Path, change: Change, words: str) -> None:
    save("qwen", tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    change(document)
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(Corrupt, match=rf"tokenizer\.json: .*{words}"):
        Tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("model", {"type": "WordPiece", "vocab": {"a": 0}}, "'WordPiece' tokenizer"),
        ("decoder", {"type": "WordPiece", "prefix": "##", "cleanup": True}, r"decoder \(WordPiece\)"),
        ("model", {"type": "BPE", "vocab": {"a": 0}, "merges": [], "continuing_subword_prefix": "x"}, "prefixes"),
        ("model", {"type": "BPE", "vocab": {"a": 0}, "merges": [], "end_of_word_suffix": "</w>"}, "suffixes"),
        ("decoder", None, r"decoder \(none\)"),
        ("pre_tokenizer", split("(a+)+b"), "could run for ever"),
        ("pre_tokenizer", {"type": "Sequence", "pretokenizers": [split("(a|aa)*b")]}, "could run for ever"),
        ("pre_tokenizer", split("a" * 5000), "could run for ever"),
        ("normalizer", {"type": "Replace", "pattern": {"Regex": r"((\w*)-){2,}"}, "content": ""}, "could run for ever"),
    ],
)
def test_not_supported(tmp_path: Path, field: str, value: Any, words: str) -> None:
    save("qwen", tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(document | {field: value}))
    with pytest.raises(NotSupported, match=words):
        Tokenizer(tmp_path)


def test_repeated_groups() -> None:
    assert not any(
        map(repeats_a_group, [QWEN, r"[(a+)+]+", r"\)*\(", r"(?:a|b)?", r"(a){2}", r"[^\]()]*", r"\p{N}{1,3}"])
    )
    assert all(map(repeats_a_group, [r"(a+)+", r"(?:a)*?", r"x(a(b)c){3,}", r"[)](a)+", r"\\(a)+"]))


def test_long_texts_take_no_time_of_note(tmp_path: Path) -> None:
    save("qwen", tmp_path)
    ours = Tokenizer(tmp_path)
    started = time.monotonic()
    for text in ("a" * 100_000 + "!", " " * 100_000 + "x", "\n" * 100_000, "'" * 100_000, "<|im_" * 20_000):
        ours.encode_text(text)
        ours.encode_rendered(text)
    assert time.monotonic() - started < 20


def test_dropout_is_off(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    document["model"]["dropout"] = 0.5
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    ours = Tokenizer(tmp_path)
    assert len({tuple(ours.encode_text("hello there, world")) for _ in range(20)}) == 1


def test_truncation_and_padding_are_off(tmp_path: Path) -> None:
    library = build("gpt2")
    library.enable_truncation(2)
    library.enable_padding(length=50)
    library.save(str(tmp_path / "tokenizer.json"))
    assert 2 < len(Tokenizer(tmp_path).encode_text("hello there, world")) < 50
