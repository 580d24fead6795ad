"""Every link of every document leads somewhere, and every page is on the site."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
WHOLE = re.DOTALL | re.MULTILINE


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def broken(page: Path) -> list[str]:
    """Links of a page to files that are not there, or to headings that are not."""
    found = []
    for link in LINK.findall(re.sub(r"```.*?```|`[^`\n]*`", "", _text(page), flags=re.DOTALL)):
        target, _, anchor = link.partition("#")
        if "://" in target or link.startswith("mailto:"):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            found.append(link)
    return found


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links."""
    heads = re.findall(r"^#+ (.+)$", _text(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}


def test_links_lead_somewhere(tmp_path: Path) -> None:
    assert {str(page.relative_to(ROOT)): links for page in PAGES if (links := broken(page))} == {}
    page = tmp_path / "page.md"
    page.write_text("[a](b.md) [c](page.md#nowhere) [d](#here)\n\n# Here\n", encoding="utf-8")
    assert broken(page) == ["b.md", "page.md#nowhere"]


def test_every_page_is_on_the_site() -> None:
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"- ([\w./-]+\.md)$", site, re.MULTILINE))
    assert listed == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}


def test_every_decision_has_its_number_and_is_listed() -> None:
    folder = ROOT / "docs" / "inside" / "decisions"
    names = sorted(page.name for page in folder.glob("[0-9]*.md"))
    assert len({name[:4] for name in names}) == len(names)  # numbers are given out beforehand: some may be open
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text(encoding="utf-8"))
    assert listed == names


def test_lines_have_100_columns_at_most() -> None:
    """Not in blocks of code and tables, which cannot be broken."""
    found = list[str]()
    for page in [*PAGES, ROOT / "CHANGELOG.md"]:
        text = re.sub(r"^( *)```.*?^\1```", lambda block: "\n" * block[0].count("\n"), _text(page), flags=WHOLE)
        lines = enumerate(text.split("\n"), 1)
        found += [f"{page.name}:{at}" for at, line in lines if len(line) > 100 and not line.startswith("|")]
    assert not found, " ".join(found)
