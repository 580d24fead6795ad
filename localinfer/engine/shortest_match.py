"""How long the shortest match of a regular expression is, at least: 1 a character, `digit` for one that is a digit."""

import re

_COUNT = re.compile(r"\{\s*([0-9]{1,9})?\s*(,)?\s*([0-9]{1,9})?\s*\}")
_ESCAPE = re.compile(r"\\(?:[pPxuU]\{[^}]*\}|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_GROUP = re.compile(r"\(\?(?:P?<[^>]*>|[a-zA-Z-]*:?)")


_DIGIT = re.compile(r"\\d|[0-9]|\[(?:[0-9](?:-[0-9])?)+\]")


def shortest_match(expression: str, digit: float = 1.0) -> float:
    """The least length of what matches."""
    branches: list[list[float]] = [[]]
    sums, last, at = [0.0], 0.0, 0
    while at < len(expression):
        character = expression[at]
        if character == "(":
            found = _GROUP.match(expression, at)
            if found and "x" in found[0].partition("<")[0]:
                return 0  # spaces mean nothing from here on
            branches.append([])
            sums.append(0.0)
            at = found.end() if found else at + 1
            if found and found[0][-1] not in ":>":
                last = 0.0  # flags alone: its bracket closes at once
        elif character == ")" and len(sums) > 1:
            last = min([*branches.pop(), sums.pop()])
            sums[-1] += last
            at += 1
        elif character == "|":
            branches[-1].append(sums[-1])
            sums[-1], last = 0.0, 0.0
            at += 1
        elif character in "*?":
            sums[-1] -= last
            last = 0.0
            at += 1
        elif character in "+^$":
            at += 1
        elif (count := _COUNT.match(expression, at)) and count[1]:
            sums[-1] += last * (int(count[1]) - 1)
            last *= int(count[1])
            at = count.end()
        else:
            begin = at
            at, last = _atom(expression, at)
            last = digit if _DIGIT.fullmatch(expression, begin, at) else last
            sums[-1] += last
    return max(0.0, min([*branches[0], sums[0]])) if len(sums) == 1 else 0


def _atom(expression: str, at: int) -> tuple[int, float]:
    """Where one character or class ends, and how long it is."""
    if expression[at] == "[":
        return _class_end(expression, at), 1.0
    if found := _ESCAPE.match(expression, at):
        return found.end(), 0.0 if found[0][1] in "bBAzG" else 1.0
    return at + 1, 1.0


def _class_end(expression: str, at: int) -> int:
    depth, here = 0, at
    while here < len(expression):
        if expression[here] == "\\":
            here += 1
        elif expression[here] == "[":
            depth += 1
            here += expression[here + 1 : here + 2] == "^"
            here += expression[here + 1 : here + 2] == "]"  # the first one stands for itself
        elif expression[here] == "]":
            depth -= 1
            if not depth:
                return here + 1
        here += 1
    return here
