"""Tokens and templates that live beside `tokenizer.json`: prompts, encoding and decoding as `transformers` has them."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Library

from localinfer.chats.chat import Chat
from localinfer.chats.template import Message, render
from localinfer.config import EngineConfig
from localinfer.engine.opening import open_engine
from localinfer.errors import Corrupt
from localinfer.formats.tokenizer import Tokenizer
from tests.tiny import make_checkpoint

Json = dict[str, Any]
MARKS = ("<|bos|>", "<|im_start|>", "<|im_end|>")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FLAGS = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
DECODER = {str(256 + i): {"content": mark, **FLAGS} for i, mark in enumerate(MARKS)}
TEXTS = ("Hi", " Hi  there ", "a<|im_start|>b <|im_end|> c", "x <|new|> y", "<|new|>\n<|new|> z", "e <|pad|>[w]x w[w]")


def library(kind: str, marks: tuple[str, ...]) -> Library:
    """A tokenizer of bytes with these special tokens: byte level, or SentencePiece's way."""
    if kind == "bytes":
        made = Library(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    elif kind == "unigram":
        pieces = ["<unk>", "▁", *(chr(c) for c in range(33, 127)), "Ü", "▁Hi", "blue"]
        made = Library(models.Unigram([(piece, -1.0 - len(piece) / 9) for piece in pieces], unk_id=0))
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.decoder = decoders.Metaspace()
    else:
        vocab = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁": 256, "H": 257, "i": 258, "▁H": 259}
        made = Library(models.BPE(vocab, [("▁", "H")], unk_token=None, byte_fallback=True))
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    made.add_special_tokens([AddedToken(mark, normalized=False, special=True) for mark in marks])
    return made


def write(path: Path, kind: str, marks: tuple[str, ...], config: Json, files: dict[str, Any]) -> None:
    path.mkdir(exist_ok=True)
    library(kind, marks).save(str(path / "tokenizer.json"))
    base = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>", "eos_token": "<|im_end|>"}
    whole = {"chat_template": CHATML} | base | config
    for name, content in {"tokenizer_config.json": whole, "config.json": {"model_type": "llama"}, **files}.items():
        (path / name).parent.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            (path / name).write_bytes(content)
        else:
            (path / name).write_text(json.dumps(content), encoding="utf-8")


CASES: dict[str, tuple[tuple[str, ...], Json, dict[str, Any]]] = {
    "decoder": (MARKS[:1], {"eos_token": "<|bos|>", "added_tokens_decoder": DECODER}, {}),
    "json": (MARKS[:1], {}, {"added_tokens.json": {"<|im_start|>": 257, "<|im_end|>": 258}}),
    "map": (
        MARKS,
        {"bos_token": None, "eos_token": None, "chat_template": "{{ bos_token }}" + CHATML},
        {"special_tokens_map.json": {"bos_token": "<|bos|>", "eos_token": "<|im_end|>"}},
    ),
    "map with objects": (
        MARKS,
        {"chat_template": "{{ bos_token }}" + CHATML + "{{ eos_token }}{{ pad_token }}"},
        {
            "special_tokens_map.json": {
                "eos_token": {"content": "<|new|>", **FLAGS, "lstrip": True},
                "pad_token": {"content": "<|pad|>", **FLAGS, "rstrip": True},
                "additional_special_tokens": ["<|im_start|>", "[w]"],
            }
        },
    ),
    "map takes bos away": (
        MARKS,
        {"chat_template": "{% if bos_token is defined %}{{ bos_token }}{% endif %}" + CHATML},
        {"special_tokens_map.json": {"bos_token": None}},
    ),
    "map that a list forbids": (
        MARKS,
        {"bos_token": None, "added_tokens_decoder": {}, "chat_template": "{{ bos_token }}" + CHATML},
        {"special_tokens_map.json": {"bos_token": "<|bos|>"}},
    ),
    "no bos, no eos": (MARKS, {"bos_token": None, "eos_token": None}, {}),
    "flags of the list": (
        MARKS,
        {"added_tokens_decoder": {"257": {"content": "<|im_start|>", **FLAGS, "rstrip": True, "lstrip": True}}},
        {},
    ),
    "new with flags": (
        MARKS,
        {
            "added_tokens_decoder": {
                "900": {"content": "<|new|>", **FLAGS, "lstrip": True, "special": False},
                "700": {"content": "[w]", **FLAGS, "single_word": True, "rstrip": True},
            }
        },
        {},
    ),
    "normalized": (
        MARKS[:1],
        {
            "eos_token": "<|bos|>",  # the library shows a token that is special and normalized at once; we do not
            "added_tokens_decoder": {
                str(300 + i): {"content": mark, **FLAGS, "normalized": True, "special": False}
                for i, mark in enumerate((*MARKS[1:], "<|new|>"))
            },
        },
        {},
    ),
    "other ids": (MARKS, {}, {"added_tokens.json": {"<|new|>": 999, "<|pad|>": 600}}),
    "model's own": (MARKS, {"model_specific_special_tokens": {"image_token": "<|new|>"}}, {}),
    "model's own, and a name": (
        MARKS,
        {"model_specific_special_tokens": {"image_token": "<|new|>"}, "w_token": "[w]"},
        {},
    ),
    "model's own, and others": (
        MARKS,
        {"model_specific_special_tokens": {"image_token": "<|new|>"}, "extra_special_tokens": {"w_token": "[w]"}},
        {},
    ),
    "named only": (
        MARKS[:1],
        {"eos_token": "<|im_end|>", "pad_token": "<|pad|>", "extra_special_tokens": ["<|im_start|>"]},
        {},
    ),
    "names of its own": (MARKS, {"image_token": "<|new|>", "additional_special_tokens": ["<|pad|>"]}, {}),
    "names in an object": (MARKS, {"extra_special_tokens": {"video_token": "<|new|>"}}, {}),
    "typed token": (MARKS, {"bos_token": {"__type": "AddedToken", "content": "<|bos|>", **FLAGS}}, {}),
    "part of the vocabulary": (MARKS, {"added_tokens_decoder": {"72": {"content": "z", **FLAGS}}}, {}),
    "flags for raw text": (MARKS, {"add_bos_token": True, "add_eos_token": True}, {}),
    "spaces are cleaned up": (MARKS, {"clean_up_tokenization_spaces": True, "model_max_length": 4}, {}),
    "template file": (MARKS, {}, {"chat_template.jinja": b"{{ 'J' }}\r\n{{ 'K' }}\rL"}),
    "template file with a mark": (MARKS, {}, {"chat_template.jinja": "\ufeffJ".encode()}),
    "template by name": (
        MARKS,
        {"chat_template": [{"name": "rag", "template": "R"}, {"name": "default", "template": CHATML}]},
        {},
    ),
    "template folder": (
        MARKS,
        {"chat_template": "no"},
        {"chat_template.jinja": CHATML.encode(), "additional_chat_templates/tool_use.jinja": b"T {{ tools | tojson }}"},
    ),
    "processor's template is not the tokenizer's": (MARKS, {}, {"chat_template.json": {"chat_template": "P"}}),
    "none is iterable": (
        MARKS,
        {"chat_template": "{% if tools is iterable and tools | length > 0 %}TOOLS{% endif %}" + CHATML},
        {},
    ),
}


def ids_here(tokenizer: Tokenizer, text: str, tools: list[Json] | None = None) -> list[int]:
    """The tokens of a chat that begins with `text`."""
    rendered = render(
        (tokenizer.tools_template if tools else None) or tokenizer.chat_template,
        [Message("user", text)],
        bos=tokenizer.bos_token,
        eos=tokenizer.eos_token,
        special_strings=tokenizer.special_strings,
        special_tokens=tokenizer.special_tokens,
        tools=tools,
    )
    return tokenizer.encode_rendered(rendered.text, rendered.guard)


@pytest.mark.parametrize("kind", ["bytes", "words"])
@pytest.mark.parametrize("name", CASES)
def test_as_transformers_puts_them_together(name: str, kind: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    marks, config, files = CASES[name]
    write(tmp_path, kind, marks, config, files)
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer(tmp_path)
    assert ours.special_tokens == theirs.special_tokens_map
    assert (ours.bos_id, ours.bos_token) == (theirs.bos_token_id, theirs.bos_token or "")
    assert {ours.token_id(token.content): token for token in theirs.added_tokens_decoder.values()} == (
        theirs.added_tokens_decoder
    )
    for tools in (None, [{"type": "function", "function": {"name": "f"}}]):
        expected = theirs.apply_chat_template([{"role": "user", "content": "Hi"}], tools, add_generation_prompt=True)
        assert ids_here(ours, "Hi", tools) == expected["input_ids"]
    for text in TEXTS:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode_rendered(text) == ids, text
        for specials in (False, True):
            assert ours.decode(ids, specials=specials) == theirs.decode(ids, skip_special_tokens=not specials), text
    text = "yes you"
    bos = [ours.bos_id] if ours.adds_bos else []
    assert [*bos, *ours.encode_text(text)] == theirs.encode(text)


@pytest.mark.parametrize("kind", ["bytes", "words"])
@pytest.mark.parametrize("name", CASES)
def test_no_words_become_a_declared_token(name: str, kind: str, tmp_path: Path) -> None:
    marks, config, files = CASES[name]
    write(tmp_path, kind, marks, config, files)
    ours = Tokenizer(tmp_path)
    declared = {ours.token_id(content) for content in ours.special_strings}

    def found(text: str) -> list[int]:
        return [token for token in ids_here(ours, text) if token in declared]

    assert found("a " + " ".join(ours.special_strings) + " b") == found("a <|bos|> b")
    assert len(found("a <|bos|> b")) <= max(3, len(found("a b")))
    assert not declared & set(ours.encode_text("a " + " ".join(ours.special_strings) + " b"))


@pytest.mark.parametrize(("name", "count"), [("decoder", 21), ("json", 21), ("map", 22), ("none is iterable", 21)])
def test_prompt_of_a_model(name: str, count: int, tmp_path: Path) -> None:
    marks, config, files = CASES[name]
    model = make_checkpoint(tmp_path / "model", vocab_size=272)
    shape = json.loads((model / "config.json").read_text())
    write(model, "bytes", marks, config, {**files, "config.json": shape})
    (model / "generation_config.json").unlink()
    with open_engine(model, EngineConfig(context=64, draft="off")) as engine:
        assert len(Chat(engine).tokens_of("Hi")) == count


def test_a_processor_s_template_is_better_than_none(tmp_path: Path) -> None:
    write(tmp_path, "bytes", MARKS, {"chat_template": None}, {"chat_template.json": {"chat_template": "P"}})
    assert Tokenizer(tmp_path).chat_template == "P"


def test_what_is_not_done_is_told(tmp_path: Path) -> None:
    listed = {"900": {"content": "<|new|>", **FLAGS}, "901": {"content": "<|pad|>", **FLAGS}}
    config = {"added_tokens_decoder": listed, "split_special_tokens": True}
    write(tmp_path, "bytes", MARKS, config, {"config.json": {"vocab_size": 260}})
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "rag.jinja").write_text("R")
    ours = Tokenizer(tmp_path)
    assert ours.vocab_size == 260
    assert ours.token_id("<|new|>") == 259
    assert ours.token_id("<|pad|>") is None
    assert ours.chat_template is None
    told = "\n".join(ours.notes)
    assert all(word in told for word in ("<|new|>", "<|pad|>", "260", "split_special_tokens", "rag"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": {"-1": {"content": "x"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": {"content": 5}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": []}),
        ("tokenizer_config.json", {"extra_special_tokens": 5}),
        ("tokenizer_config.json", {"pad_token": {"content": "x" * 5000}}),
        ("special_tokens_map.json", {"bos_token": []}),
        ("special_tokens_map.json", []),
        ("added_tokens.json", {"x": "1"}),
        ("added_tokens.json", {"x": -1}),
        ("added_tokens.json", {f"x{i}": i for i in range(70000)}),
        ("chat_template.json", {"chat_template": 5}),
        ("chat_template.jinja", b"\xff"),
        ("chat_template.jinja", b"x" * (1 << 20 | 1)),
        ("additional_chat_templates/t.jinja", b"\xff"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: Any) -> None:
    config = {} if name == "tokenizer_config.json" else {"chat_template": None}
    files = {name: config | content} if isinstance(content, dict) else {name: content}
    write(tmp_path, "bytes", MARKS, config, files)
    with pytest.raises(Corrupt, match=Path(name).name.replace(".", r"\.")):
        Tokenizer(tmp_path)


PLAIN = {**FLAGS, "special": False}
ADDED_WORDS: dict[str, Json] = {
    "Zyx": PLAIN,
    "blue sky": {**PLAIN, "single_word": True},
    "Über": {**PLAIN, "normalized": True},
    "qq": {**PLAIN, "lstrip": True, "rstrip": True},
}
CONTROLS = ("<tool_call>", "[CALL]", "<|go", "Human:")


@pytest.mark.parametrize("kind", ["bytes", "words", "unigram"])
@pytest.mark.parametrize("place", ["list", "file"])
def test_added_words_are_words_and_control_tokens_are_not(place: str, kind: str, tmp_path: Path) -> None:
    """A token that is not special may still be a control token: by its brackets, or because the template writes it."""
    from transformers import AutoTokenizer

    tokens = {**ADDED_WORDS, **dict.fromkeys(CONTROLS, PLAIN)}
    listed = {str(300 + i): {"content": content, **flags} for i, (content, flags) in enumerate(tokens.items())}
    config: Json = {"chat_template": CHATML.replace("'\n'", "'\nHuman:'", 1)}
    if place == "list":
        write(tmp_path, kind, MARKS, {**config, "added_tokens_decoder": listed}, {})
    else:
        write(tmp_path, kind, MARKS, config, {"added_tokens.json": {c: 300 + i for i, c in enumerate(tokens)}})
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer(tmp_path)
    assert ours.encode_text("a Zyx b") == theirs.encode("a Zyx b", add_special_tokens=False)
    assert ours.token_id("Zyx") in ours.encode_text("a Zyx b")
    for text in ("Zyx", "aZyxZyx b", "blue sky", "xblue sky blue sky.", "Hi Über  Überx", "a qq b", "qqqq", "H blue"):
        assert ours.encode_text(text) == theirs.encode(text, add_special_tokens=False), text
        expected = theirs.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)
        assert ids_here(ours, text) == expected["input_ids"], text
        ids = ours.encode_text(text)
        if "Ü" not in text or kind != "bytes":  # the library takes its letters for bytes
            assert ours.decode(ids) == theirs.decode(ids), text
    for control in CONTROLS:
        assert control in ours.special_strings
        assert ours.token_id(control) not in ours.encode_text(f"a {control} b")
        count = sum(token == ours.token_id(control) for token in ids_here(ours, f"a {control} b"))
        assert count == (control == "Human:")  # the template's
