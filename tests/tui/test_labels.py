"""Names of models where room is short."""

import pytest
from rich.cells import cell_len

from localinfer.tui.labels import model_label

WHOLE = "HuggingFaceTB/SmolLM2-135M-Instruct:INT4"


@pytest.mark.parametrize(
    ("ref", "bits", "room", "label"),
    [
        (WHOLE, "", 40, WHOLE),
        (WHOLE, "INT4", 39, "SmolLM2-135M-Instruct:INT4"),
        (WHOLE, "INT4", 20, "SmolLM2-135M-I…:INT4"),
        ("org/name@0123456789abcdef:INT8", "INT8", 30, "org/name@0123456789abcdef:INT8"),
        ("org/name@0123456789abcdef:INT8", "INT8", 26, "name@0123456789abcdef:INT8"),
        ("org/name@0123456789abcdef:INT8", "INT8", 25, "name:INT8"),
        ("org/name", "BF16", 40, "org/name:BF16"),
        ("org/name", "", 6, "name"),
        ("./models/tiny/INT4", "INT4", 40, "./models/tiny/INT4"),
        ("./models/tiny/INT4", "INT4", 12, "tiny/INT4"),
        ("models/name-Q4_0.gguf", "Q4_0", 16, "name-Q4_0.gguf"),
        ("models/名前名前名前", "INT4", 12, "名前名…:INT4"),
    ],
)
def test_what_goes_first(ref: str, bits: str, room: int, label: str) -> None:
    assert model_label(ref, bits, room) == label
    assert cell_len(label) <= room


def test_the_organisation_makes_room_for_what_stands_beside_it() -> None:
    assert model_label(WHOLE, "INT4", 60, spare=20) == WHOLE
    assert model_label(WHOLE, "INT4", 60, spare=21) == "SmolLM2-135M-Instruct:INT4"


@pytest.mark.parametrize("room", range(7, 80))
def test_the_width_is_never_dropped(room: int) -> None:
    for ref in (WHOLE, "a/b:INT4", "/very/long/path/to/a/model", "x" * 300, "名" * 50):
        four, eight = (model_label(ref.replace("INT4", bits), bits, room) for bits in ("INT4", "INT8"))
        assert four.endswith(":INT4")
        assert eight.endswith(":INT8")
        assert max(cell_len(four), cell_len(eight)) <= room


def test_a_hostile_name_is_cleaned() -> None:
    assert model_label("a/b\x1b[31m\nc:INT4", "INT4\x1b]0;x\x07", 40) == "a/b c:INT4"
