"""`run` and `map` with answers that keep a form."""

import json
import re
from pathlib import Path

import pytest

from localinfer.engine import grammar
from tests.cli.conftest import Cli

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}, "y": {"enum": ["up", "down"]}},
    "required": ["x", "y"],
    "additionalProperties": False,
}


def check(text: str) -> None:
    found = json.loads(text)
    assert found.keys() == {"x", "y"}
    assert found["x"] in range(100)
    assert found["y"] in ("up", "down")


def test_run_keeps_a_schema_given_or_in_a_file(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "point.json"
    file.write_text(json.dumps(POINT), encoding="utf-8")
    texts = [cli("run", str(tiny), "hi", "--schema", given, "-q").out for given in (json.dumps(POINT), str(file))]
    check(texts[0])
    assert texts[0] == texts[1]


def test_run_keeps_an_expression(cli: Cli, tiny: Path) -> None:
    ran = cli("run", str(tiny), "hi", "--regex", r"v[0-9]+\.[0-9]{2}", "-q", "--temp", "1", "-n", "200")
    assert ran.code == 0
    assert re.fullmatch(r"v[0-9]+\.[0-9]{2}\n", ran.out)


@pytest.mark.parametrize("way", ["gbnf", "lark"])
def test_run_keeps_a_grammar_given_or_in_a_file(cli: Cli, tiny: Path, tmp_path: Path, way: str) -> None:
    gbnf = 'root ::= word (" " word){1,3}\nword ::= "a" [b-d]+ "!" # no end\n'
    lark = 'start: word (" " word){1,3}\nword: "a" /[b-d]+/ "!"\n'
    given = gbnf if way == "gbnf" else lark
    file = tmp_path / "words"
    file.write_text(given, encoding="utf-8")
    flags = ("-q", "--temp", "1", "--seed", "3", "-n", "400")
    texts = [cli("run", str(tiny), "hi", "--grammar", one, *flags).out for one in (given, str(file))]
    assert re.fullmatch(r"a[b-d]+!( a[b-d]+!){1,3}\n", texts[0])
    assert texts[0] == texts[1]


def test_each_row_of_map_keeps_it(cli: Cli, tiny: Path) -> None:
    lines = "".join(json.dumps({"prompt": f"point {n}", "temperature": 1, "seed": n}) + "\n" for n in range(6))
    ran = cli("map", str(tiny), "--schema", json.dumps(POINT), "-q", stdin=lines.encode())
    texts = [json.loads(line)["text"] for line in ran.out.splitlines()]
    assert len(set(texts)) > 1
    for text in texts:
        check(text)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--regex", "a", "--json-object"], "one form"),
        (["--regex", "(a"], "cannot be kept"),
        (["--schema", '{"type": "string", "minLength": 2, "maxLength": 1}'], "nothing keeps this schema"),
        (["--schema", "false"], "nothing keeps this schema"),
        (["--schema", "[]"], "neither an object nor true or false"),
        (["--schema", '{"$ref": "#"}'], "no text with an end keeps this schema"),
        (["--schema", '{"type": "array", "minItems": 999}', "-n", "99"], "takes about 1124 tokens, more than 99"),
        (["--regex", "[a-z]{9000}"], "takes about 1125 tokens, more than the"),
        (["--regex", ""], "needs a value"),
        (["--regex", "a\\"], "lone backslash"),
        (["--schema", "{"], "no JSON"),
        (["--grammar", "root ::= (a"], "neither Lark nor GBNF"),
        (["--grammar", "root ::= nobody"], "neither Lark nor GBNF"),
        (["--grammar", "start: nobody"], "cannot be kept"),
        (["--grammar", "start: /(a{1000}){1000}/"], "counts written out"),
        (["--grammar", "root ::= " + "(" * 5000], "neither Lark nor GBNF"),
        (["--grammar", "start: start"], "no text with an end keeps this grammar"),
        (["--grammar", 'first: "a"'], "has no rule `start`"),
        (["--grammar", 'start: "a"', "--regex", "a"], "one form"),
    ],
)
def test_what_cannot_be_kept_is_told_and_nothing_is_said(cli: Cli, tiny: Path, flags: list[str], told: str) -> None:
    ran = cli("run", str(tiny), "hi", *flags, "-q")
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err


@pytest.mark.parametrize(
    ("flag", "given", "what"),
    [
        ("--schema", "nowhere.json", "JSON schema"),
        ("--schema", "'a'", "JSON schema"),
        ("--grammar", "nonsense(", "grammar"),
    ],
)
def test_what_is_neither_a_form_nor_a_file(cli: Cli, tiny: Path, flag: str, given: str, what: str) -> None:
    ran = cli("run", str(tiny), "hi", flag, given, "-q")
    assert (ran.code, ran.out) == (4, "")
    assert f"`{given}` is no {what}, and as the name of a file: no such file" in ran.err
    assert f"a {what.removeprefix('JSON ')} is like" in ran.err


def test_a_file_may_be_called_like_a_value(
    cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert json.loads(cli("run", str(tiny), "hi", "--schema", "true", "-q", "-n", "300").out or "null") is not Ellipsis
    Path("true").write_text('{"const": 7}', encoding="utf-8")
    assert cli("run", str(tiny), "hi", "--schema", "true", "-q").out == "7\n"


def test_what_was_written_of_a_form_that_became_too_large_stays(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammar, "_LIMITS", {"max_lexer_states": 50, "verbose_errors": False})
    flags = ("--regex", "[a-d]{200}", "--temp", "1", "-n", "300", "-q")
    ran = cli("run", str(tiny), "hi", *flags)
    assert ran.code == 2
    assert re.fullmatch(r"[a-d]{10,60}\n", ran.out)
    assert "became too large to follow" in ran.err
    (row,) = cli("map", str(tiny), *flags, stdin=b'{"prompt": "hi"}\n').out.splitlines()
    assert re.fullmatch(r"[a-d]{10,60}", json.loads(row)["text"])
    assert "became too large" in json.loads(row)["error"]["message"]


def test_a_file_that_is_too_large_for_a_form(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    file.write_bytes(b" " * (1 << 21))
    ran = cli("run", str(tiny), "hi", "--schema", str(file))
    assert ran.code == 2
    assert "has more than 1048576 bytes" in ran.err
