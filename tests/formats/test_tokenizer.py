"""Text to ids and back: as the tokenizers library for honest text, and no special token from a person's words."""

import json
import random
from pathlib import Path

import pytest

from localinfer.errors import Corrupt, NotFound, NotSupported, UsageError
from localinfer.formats.tokenizer import Tokenizer
from tests.formats.small_tokenizers import BYTE_LEVEL, KINDS, save

GUARD = "\ue000"
TEXTS = [
    "",
    " ",
    "Hello world",
    "  two spaces, and a trailing one ",
    "a\n\nb\t c\r\n\n\n",
    "日本語 é e\u0301 ﬁ 🎉👩‍👩‍👧 \u200d\u00a0x",
    "don't we'll I'M 3.14 1,000 x_y-z",
    "a word, swordfish word_ word",
    "<|im_start| im_end|> < s> </ s> <0x0A> ▁x",
    "العربية हिन्दी ไทย \x00\x01\x7f",
    "x" * 300,
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_honest_text_is_as_the_library_has_it(kind: str, tmp_path: Path) -> None:
    library = save(kind, tmp_path)
    ours = Tokenizer(tmp_path)
    honest = [text for text in TEXTS if not any(special in text for special in ours.special_strings)]
    assert len(honest) >= len(TEXTS) - 1
    for text in honest:
        assert ours.encode_text(text) == library.encode(text, add_special_tokens=False).ids, text


def test_rendered_text_is_as_the_library_has_it(kind: str, tmp_path: Path) -> None:
    library = save(kind, tmp_path)
    ours = Tokenizer(tmp_path)
    assert len(ours.special_strings) >= 4
    for text in TEXTS:
        for special in ours.special_strings:
            for rendered in (special + text, text + special, f"{special}user\n{text} {special}\n", special * 2 + text):
                expected = library.encode(rendered, add_special_tokens=False).ids
                assert ours.encode_rendered(rendered) == expected, rendered


def test_no_words_become_a_special_token(kind: str, tmp_path: Path) -> None:
    save(kind, tmp_path)
    ours = Tokenizer(tmp_path)
    unknown = ours.token_id("<unk>")
    forbidden = {ours.token_id(special) for special in ours.special_strings} - {unknown}
    for special in ours.special_strings:
        for text in (special, f"a{special}b", f" {special} ", special * 3, f"{special}\n", f"x {special}y"):
            assert not forbidden & set(ours.encode_text(text)), text
            guarded = text.replace(special, special[:1] + GUARD + special[1:])
            start = ours.special_strings[1]
            ids = ours.encode_rendered(f"{start}user\n{guarded}{start}", GUARD)
            assert [i for i in ids if i in forbidden] == [ours.token_id(start)] * 2, text


def test_the_guard_changes_nothing_else(kind: str, tmp_path: Path) -> None:
    save(kind, tmp_path)
    ours = Tokenizer(tmp_path)
    for text in TEXTS:
        guarded = GUARD.join(text)
        assert ours.encode_rendered(guarded, GUARD) == ours.encode_text(text)


@pytest.mark.parametrize("kind", BYTE_LEVEL)
def test_byte_level_gives_every_text_back(kind: str, tmp_path: Path) -> None:
    save(kind, tmp_path)
    ours = Tokenizer(tmp_path)
    for text in TEXTS:
        if kind != "qwen" or text.isascii():  # Qwen normalizes to NFC
            assert ours.decode(ours.encode_text(text)) == text
    hostile = "".join(ours.special_strings)
    assert ours.decode(ours.encode_text(hostile)) == hostile


def test_decode_is_as_the_library_has_it(kind: str, tmp_path: Path) -> None:
    library = save(kind, tmp_path)
    ours = Tokenizer(tmp_path)
    for text in TEXTS:
        ids = ours.encode_text(text)
        assert ours.decode(ids) == library.decode(ids)
        special = ours.token_id(ours.special_strings[1])
        assert special is not None
        assert ours.decode([special, *ids, special]) == library.decode([special, *ids, special])


def test_streaming_shows_whole_characters_only(kind: str, tmp_path: Path) -> None:
    save(kind, tmp_path)
    ours = Tokenizer(tmp_path)
    for text in TEXTS:
        ids = ours.encode_text(text)
        stream = ours.stream()
        pieces = [stream.push(i) for i in ids]
        if ours.token_id("<unk>") not in ids:
            assert "\ufffd" not in "".join(pieces)
        assert "".join(pieces) + stream.finish() == ours.decode(ids)


def test_streaming_random_tokens_adds_up(kind: str, tmp_path: Path) -> None:
    """Also for tokens that are no UTF-8 together."""
    save(kind, tmp_path)
    ours = Tokenizer(tmp_path)
    rng = random.Random(7)
    for _ in range(200):
        ids = [rng.randrange(ours.vocab_size + 2) for _ in range(rng.randrange(12))]
        for specials in (False, True):
            stream = ours.stream(specials=specials)
            whole = "".join([*map(stream.push, ids), stream.finish()])
            assert whole == ours.decode(ids, specials=specials)


def test_a_cut_character_is_marked_at_the_end_only(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    ours = Tokenizer(tmp_path)
    ids = ours.encode_text("ไ")
    assert len(ids) == 3
    stream = ours.stream()
    assert [stream.push(i) for i in ids[:2]] == ["", ""]
    assert stream.finish() == "\ufffd"


def test_specials_are_shown_when_asked_for(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    ours = Tokenizer(tmp_path)
    ids = ours.encode_rendered("<|im_start|>a<think>b<|im_end|>")
    assert ours.decode(ids) == "a<think>b"
    assert ours.decode(ids, specials=True) == "<|im_start|>a<think>b<|im_end|>"


def test_a_continued_text_keeps_its_space(tmp_path: Path) -> None:
    save("prepend", tmp_path)
    ours = Tokenizer(tmp_path)
    ids = ours.encode_text("Paris")
    assert ours.decode(ids) == "Paris"
    assert ours.stream(continues=True).push_all(ids) == " Paris"


def test_line_breaks_that_are_added_tokens_stay(tmp_path: Path) -> None:
    """Gemma keeps runs of line ends as added tokens; they are harmless and worth having in a person's text."""
    save("gemma", tmp_path)
    ours = Tokenizer(tmp_path)
    assert "\n\n" not in ours.special_strings
    assert "<b>" in ours.special_strings
    assert ours.token_id("\n\n") in ours.encode_text("a\n\nb")


def test_names_and_ends(tmp_path: Path) -> None:
    save("smollm", tmp_path, {"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>"})
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    (tmp_path / "config.json").write_text('{"eos_token_id": 7}')
    ours = Tokenizer(tmp_path)
    assert (ours.bos_token, ours.bos_id, ours.eos_token) == ("<|im_start|>", 1, "<|im_end|>")
    assert ours.eos_ids == (0, 2, 7)
    assert not ours.adds_bos
    assert ours.chat_template is None


@pytest.mark.parametrize(
    ("config", "adds"),
    [({}, False), ({"bos_token": "<s>"}, True), ({"bos_token": "<s>", "add_bos_token": False}, True)],
)
def test_the_tokenizer_itself_says_whether_bos_is_added(tmp_path: Path, config: dict[str, object], adds: bool) -> None:
    save("prepend", tmp_path, config)
    assert Tokenizer(tmp_path).adds_bos is adds


def test_chat_template(tmp_path: Path) -> None:
    save(
        "gpt2", tmp_path, {"chat_template": [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]}
    )
    assert Tokenizer(tmp_path).chat_template == "D"
    (tmp_path / "chat_template.jinja").write_text("J")
    assert Tokenizer(tmp_path).chat_template == "J"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(Corrupt, match=r"chat_template\.jinja: is not UTF-8"):
        Tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("tokenizer_config.json", {"bos_token": 5}, "`bos_token` must be text"),
        ("tokenizer_config.json", {"chat_template": 5}, "`chat_template` must be text"),
        ("tokenizer_config.json", {"chat_template": "x" * (1 << 20 | 1)}, "`chat_template` must be text"),
        ("generation_config.json", {"eos_token_id": -1}, "`eos_token_id` is -1"),
        ("generation_config.json", {"eos_token_id": [0, "2"]}, "`eos_token_id` is 2"),
        ("generation_config.json", {"eos_token_id": 1e3}, "`eos_token_id` is 1000"),
        ("config.json", {"eos_token_id": 1 << 40}, "`eos_token_id` is 1099511627776"),
        ("config.json", [], "not an object"),
    ],
)
def test_bad_small_files(tmp_path: Path, name: str, content: object, words: str) -> None:
    save("gpt2", tmp_path)
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(Corrupt, match=words):
        Tokenizer(tmp_path)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"tokenizer\.json: no such file"):
        Tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(NotSupported, match=r"tokenizer\.model only"):
        Tokenizer(tmp_path)


def test_half_a_surrogate_pair_is_an_error_of_use(tmp_path: Path) -> None:
    save("gpt2", tmp_path)
    with pytest.raises(UsageError, match="not valid Unicode at character 1"):
        Tokenizer(tmp_path).encode_text("a\ud800b")
