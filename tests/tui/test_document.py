"""Answers as blocks: what is drawn does not depend on how the text came, and nothing of it is lost."""

import random
from collections.abc import Iterable

import pytest

from localinfer.text import clean
from localinfer.tui.blocks import PROSE
from localinfer.tui.document import LONG, Document
from tests.tui.test_hostile import FRAGMENTS
from tests.tui.writing import Writer, words_of


def drawn(pieces: Iterable[str], width: int = 80) -> list[str]:
    """The lines of a whole answer, which is laid out after every piece, as on the screen."""
    document = Document()
    for piece in pieces:
        document.feed(piece)
        for block in (*document.closed, *document.open):
            block.lines(width)
    document.finish()
    lines: list[str] = []
    for block in (*document.closed, *document.open):
        lines += [""] if lines and not block.close else []
        lines += [line.content.plain.rstrip() for line in block.lines(width)]
    return lines


@pytest.mark.parametrize("seed", range(6))
def test_how_it_came_does_not_matter(seed: int) -> None:
    writer = Writer(seed)
    text = writer.answer(5)
    assert drawn(writer.pieces(text, most=20)) == drawn([text])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("width", [9, 300])
def test_no_word_is_lost(seed: int, width: int) -> None:
    text = Writer(seed).answer(6)
    shown = "".join(drawn([text], width))
    assert sorted(set("".join(words_of(text)))) == sorted(set("".join(words_of(shown.replace("copy", "")))))
    if width == 300:
        assert words_of(text) == [word for word in words_of("\n".join(drawn([text], width))) if word != "copy"]


@pytest.mark.parametrize("seed", range(30))
def test_any_fragments(seed: int) -> None:
    chance = random.Random(seed)
    pieces = [clean(chance.choice(FRAGMENTS)) for _ in range(40)]
    whole = drawn(["".join(pieces)], 60)
    assert drawn(pieces, 60) == whole


def test_a_closed_block_is_laid_out_once() -> None:
    document = Document()
    document.feed("one\n\ntwo\n\nthree")
    first = document.closed[0]
    lines = first.lines(80)
    document.feed(" more\n\nfour\n\n")
    assert document.closed[0] is first
    assert first.lines(80) is lines


@pytest.mark.parametrize(
    "line",
    ["| w | w |\n", "x = 1\n", "- item\n", "word word\n", "word ", "# head\n", "> quote\n\n", "語", "a*b_c "],
    ids=repr,
)
def test_what_is_parsed_stays_small(line: str) -> None:
    head = {"| ": "| a | b |\n|---|---|\n", "x ": "```python\n"}.get(line[:2], "")
    document = Document()
    document.feed(head)
    longest = 0
    piece = line * (60 // len(line))
    for _ in range(100):
        document.feed(piece)
        longest = max(longest, len(document._tail))
    assert longest <= LONG + len(piece)


def test_a_long_paragraph_breaks_where_it_would_anyway() -> None:
    text = "".join(f"**w{i}** w{i}, " for i in range(800))
    lines = drawn([text[at : at + 300] for at in range(0, len(text), 300)], 70)
    assert words_of(" ".join(lines)) == words_of(text)
    assert "**" not in "".join(lines)
    assert [line for line in lines[:-1] if len(line) < 60] == []


def test_prose_is_narrow_and_tables_fit_what_they_hold() -> None:
    text = "word " * 100 + "\n\n| a | b |\n|---|:---:|\n| one | x |\n| two | yyy |\n"
    lines = drawn([text], 200)
    assert max(map(len, lines)) <= PROSE
    assert lines[-4:] == ["a   │  b", "────┼────", "one │  x", "two │ yyy"]


def test_a_table_with_no_room_is_a_list() -> None:
    cells = [f"cell{i}" for i in range(9)]
    text = "|" + "|".join("abcdefghi") + "|\n" + "|-" * 9 + "|\n|" + "|".join(cells) + "|\n"
    assert [word for word in words_of("\n".join(drawn([text], 20))) if word in cells] == cells


def test_a_table_breaks_no_word_of_usual_length() -> None:
    text = "| Feature | Description |\n|---|---|\n| Concurrency | how the implementation does several things |\n"
    lines = drawn([text], 30)
    assert lines[0] == "Feature     │ Description"
    assert "implementation" in " ".join(lines)
    assert drawn([text], 24) == [
        "Feature │ Description",
        "────────────",
        "Feature Concurrency",
        "Description how the",
        "  implementation does",
        "  several things",
        "────────────",
    ]


def test_a_row_that_is_still_written_has_the_room_it_needs() -> None:
    document = Document()
    document.feed("| a | b |\n|---|---|\n| one | two |\n| something | anoth")
    lines = [line.content.plain.rstrip() for block in document.open for line in block.lines(40)]
    assert lines == ["a         │ b", "──────────┼──────", "one       │ two", "something │ anoth"]


def test_lines_hang_under_the_text_of_their_item() -> None:
    text = "12. one two three\n    - four five six\n\n> seven eight nine\n> - ten eleven twelve\n"
    assert drawn([text], 15) == [
        " 12. one two",
        "     three",
        "      • four",
        "        five",
        "        six",
        "",
        "▌ seven eight",
        "▌ nine",
        "▌  • ten eleven",
        "▌    twelve",
    ]


def test_cells_beyond_the_head_are_kept() -> None:
    for prefix in ("", "> ", "- "):
        inner = "  " if prefix == "- " else prefix
        text = f"{prefix}| a | b |\n{inner}|---|---|\n{inner}| 1 | 2 | 3 |\n"
        assert "3" in "".join(drawn([text]))
        assert drawn(text) == drawn([text])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"so \(a_1 * b_2 * c\) is", [r"so \(a_1 * b_2 * c\) is"]),
        (r"\(\{x\} \, y\)", [r"\(\{x\} \, y\)"]),
        ("$x_1$ and $y_2*z*$", ["$x_1$ and $y_2*z*$"]),
        ("it costs $5 and *not* $10", ["it costs $5 and not $10"]),
        ("\\[\n- a \\\\\n= b\n\\]\nafter", ["\\[", "- a \\\\", "= b", "\\]", "", "after"]),
        ("$$\nx\n---\ny\n$$", ["$$", "x", "---", "y", "$$"]),
        ("\\begin{align}\na &= b \\\\\n\\end{align}", ["\\begin{align}", "a &= b \\\\", "\\end{align}"]),
        ("\\[ x = 1 \\]", ["\\[ x = 1 \\]"]),
        ("an open \\(x", ["an open \\(x"]),
    ],
)
def test_formulas_are_raw(text: str, wanted: list[str]) -> None:
    assert drawn([text]) == wanted
    assert drawn(text) == wanted


def test_numbers_are_those_that_were_written() -> None:
    assert drawn(["3. x\n3. y\n9. z\n"]) == [" 3. x", " 3. y", " 9. z"]
    assert drawn(["- [x] done\n- [ ] open\n"]) == [" • [x] done", " • [ ] open"]


def test_definitions_are_text() -> None:
    assert drawn(["see [x]\n\n[x]: http://e.org\n"]) == ["see [x]", "", "[x]: http://e.org"]


def test_code_has_its_language_and_can_be_taken() -> None:
    document = Document()
    text = "```python\nx = 1\n\ny = 2\n```\n\n- in a list\n\n  ```sh\n  ls\n  ```\n\ntext\n\n~~~\nopen"
    for size in (1, 5, 500):
        document = Document()
        for at in range(0, len(text), size):
            document.feed(text[at : at + size])
        assert [code.text for code in document.codes] == ["x = 1\n\ny = 2", "ls", "open"]
    assert drawn([text], 20)[0] == " python        copy"
    assert drawn(["```python a long title\nx\n```"], 20)[:2] == [" python a long copy", " title"]


@pytest.mark.parametrize("width", [9, 12, 40, 100])
@pytest.mark.parametrize("prefix", ["", "> ", "- "])
def test_what_stands_behind_the_mark_of_a_block_of_code_is_kept(width: int, prefix: str) -> None:
    words = [f"w{i}" for i in range(40)]
    text = f"{prefix}```{' '.join(words)}\nx\n```\n"
    shown = [word for word in words_of("\n".join(drawn([text], width))) if word not in ("copy", "x")]
    assert shown == words


@pytest.mark.parametrize("mark", ["- ", "1. ", "> ", "> - ", ">"])
@pytest.mark.parametrize("depth", [5, 11, 25])
def test_what_stands_deep_in_lists_and_quotes_is_kept(mark: str, depth: int) -> None:
    text = f"{mark * depth} w1 w2\n{mark * depth} w3\n\nw4\n"
    assert [word for word in words_of("\n".join(drawn([text], 100))) if word[0] == "w"] == ["w1", "w2", "w3", "w4"]
    assert drawn(text, 100) == drawn([text], 100)


@pytest.mark.parametrize("text", ['{\n  "a": [\n    1,\n\n    2\n  ]\n}', '\n[\n  {"a": "*b*"}\n]', "{ }"])
def test_an_answer_that_begins_as_json_keeps_its_lines(text: str) -> None:
    shown = drawn([text])
    assert [line.removeprefix(" ").rstrip() for line in shown[1:]] == text.lstrip("\n").splitlines()
    assert drawn(text) == shown


@pytest.mark.parametrize("text", ["{so} it is\n\nand on", "[a link](x)\n\n1. one", "[ ] to do\n[x] done", "{"])
def test_other_brackets_are_text(text: str) -> None:
    document = Document()
    document.feed(text)
    document.finish()
    assert not document.codes
    assert drawn(text) == drawn([text])
