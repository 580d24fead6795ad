"""What `docs/guides/models.md` is made of; that it is current is tested with the other generated files."""

import pytest

from localinfer.bench.models_page import models_page
from localinfer.formats.gguf_forms import FORMS
from localinfer.graph.registry import known_families, read_graph
from localinfer.hub.catalogue import Entry, entries


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.repo)
def test_a_shape_is_that_of_the_model(entry: Entry) -> None:
    """To the last weight, of which nobody can be missing then."""
    assert read_graph(entry.shape).parameters() == entry.parameters


def test_the_page_has_every_family_and_every_model() -> None:
    page = models_page()
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `") and "`model_type`" not in line]
    assert {row[0].strip("| `") for row in rows if len(row) == 3} == set(known_families())
    sizes = [row for row in rows if len(row) == 9]
    assert [entry.repo in row[0] for entry, row in zip(entries(), sizes, strict=True)] == [True] * len(entries())
    order = ["none", "INT3", "INT4", "INT8", "BF16"]
    for row in sizes:
        widths = [order.index(cell) for cell in row[4:7]]
        assert widths == sorted(widths), row


def test_every_form_is_of_a_family() -> None:
    """A family whose models have experts or not may have two: llama.cpp names those with experts otherwise."""
    families = set(known_families())
    assert {name for name in FORMS if name not in families and name.removesuffix("_moe") not in families} == set()
