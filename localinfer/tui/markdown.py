"""Markdown as chat models write it, safe for a terminal."""

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

from localinfer.text import clean


def parser() -> MarkdownIt:
    """A parser for `textual.widgets.Markdown`: HTML is shown as text instead of vanishing, line ends are kept, and
    characters written as entities (`&#x202e;`) are cleaned like any others."""
    markdown = MarkdownIt("gfm-like", {"html": False})
    markdown.core.ruler.push("safe", _make_safe)
    return markdown


def _make_safe(state: StateCore) -> None:
    for token in state.tokens:
        for child in token.children or ():
            _clean_token(child)


def _clean_token(token: Token) -> None:
    if token.type == "softbreak":
        token.type = "hardbreak"
    token.content = clean(token.content)
    for name in ("alt", "title"):
        if name in token.attrs:
            token.attrs[name] = clean(str(token.attrs[name]))
    for child in token.children or ():
        _clean_token(child)
