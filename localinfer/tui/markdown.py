"""Markdown as chat models write it, safe for a terminal."""

import re
from collections.abc import Callable

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, paragraph
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from localinfer.text import clean

_INLINE_MATH = (
    re.compile(r"\\\((?:[^\\]|\\[^)])+\\\)", re.DOTALL),
    re.compile(r"\\\[(?:[^\\]|\\[^\]])+\\\]", re.DOTALL),
    re.compile(r"\$\$(?:[^$\\]|\\.)+\$\$", re.DOTALL),
    re.compile(r"\$(?![\s$])(?:[^$\\\n]|\\[^\n])*(?<!\s)\$(?!\d)"),
)
"""Formulas as TeX writes them; a dollar before a space or after one is money."""

_BLOCK_MATH: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"\\\["), lambda _: "\\]"),
    (re.compile(r"\$\$"), lambda _: "$$"),
    (re.compile(r"\\begin\{(\w+\*?)\}"), lambda found: f"\\end{{{found[1]}}}"),
)
"""What begins a formula of its own lines, and what ends it."""


DEEPEST = 18
"""Lists and quotes in each other, two levels a list; the parser drops what is deeper than 19."""


def parser() -> MarkdownIt:
    """A parser that loses nothing: HTML and definitions of links are text, line ends are kept, formulas keep their
    backslashes, and characters written as entities (`&#x202e;`) are cleaned like any others."""
    markdown = MarkdownIt("gfm-like", {"html": False}).disable("reference")
    markdown.core.ruler.push("safe", _make_safe)
    markdown.inline.ruler.before("escape", "math", _math)
    markdown.block.ruler.before("table", "deep", _deep)
    markdown.block.ruler.before("fence", "math_block", _math_block, {"alt": ["paragraph", "blockquote", "list"]})
    return markdown


def _math(state: StateInline, silent: bool) -> bool:
    """A formula, raw; of one that has no end yet, what begins it."""
    if state.src[state.pos] not in "\\$":
        return False
    found = next((one for pattern in _INLINE_MATH if (one := pattern.match(state.src, state.pos))), None)
    if found is None and state.src[state.pos : state.pos + 2] not in ("\\(", "\\)", "\\[", "\\]"):
        return False
    raw = found[0] if found else state.src[state.pos : state.pos + 2]
    if not silent:
        state.push("math", "", 0).content = raw
    state.pos += len(raw)
    return True


def _deep(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """What stands too deep for one more block is plain text."""
    return not silent and state.level >= DEEPEST and paragraph(state, start, end, silent)


def _math_block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Lines from a formula's beginning to its end, or to an empty line."""
    if state.is_code_block(start):
        return False
    line = state.getLines(start, start + 1, state.blkIndent, False).strip()
    begin = next((pair for pair in _BLOCK_MATH if pair[0].match(line)), None)
    if begin is None:
        return False
    found = begin[0].match(line)
    assert found is not None
    closer, after = begin[1](found), line[found.end() :]
    if closer in after and not after.endswith(closer):
        return False  # a sentence that begins with a formula
    if silent:
        return True
    at = start + 1
    if closer not in after:
        while at < end and not state.isEmpty(at) and state.sCount[at] >= state.blkIndent:
            at += 1
            if closer in state.getLines(at - 1, at, state.blkIndent, False):
                break
    token = state.push("math_block", "", 0)
    token.content = state.getLines(start, at, state.blkIndent, False).rstrip("\n")
    token.map = [start, at]
    state.line = at
    return True


def _make_safe(state: StateCore) -> None:
    for token in state.tokens:
        if token.type == "math_block":
            token.content = clean(token.content)
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
