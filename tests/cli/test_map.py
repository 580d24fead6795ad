"""`map`: lines in, lines out; stopped and resumed, the same bytes."""

import csv
import json
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.serve.scripts import make_caller

Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]
FEW = [{"id": f"n{i}", "prompt": f"tell me {i} things", "seed": i, "max_tokens": 3 + i % 5} for i in range(12)]


def text(rows: Sequence[object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_lines_in_lines_out(cli: Cli, mine: str) -> None:
    ran = cli("map", mine, stdin=text(FEW))
    assert ran.code == 0, ran.err
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [(row["id"], row["index"]) for row in rows] == [(f"n{i}", i) for i in range(12)]
    assert rows[0].keys() == {"id", "index", "line", "request", "text", "finish_reason", "usage", "seed"}
    assert [row["usage"]["completion_tokens"] for row in rows] == [row["max_tokens"] for row in FEW]
    assert f"12 lines; {sum(3 + i % 5 for i in range(12))} tokens in" in ran.err


def test_a_dash_is_standard_output(cli: Cli, mine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("map", mine, "-o", "-", stdin=text(FEW[:2])).out == cli("map", mine, stdin=text(FEW[:2])).out
    assert cli("map", mine, "-o", "-", "--resume", stdin=text(FEW[:2])).code == 2
    assert list(tmp_path.iterdir()) == []


def test_company_changes_no_answer(cli: Cli, mine: str) -> None:
    texts = [
        [json.loads(line)["text"] for line in cli("map", mine, "-np", n, "-q", stdin=text(FEW)).out.splitlines()]
        for n in ("1", "3", "12")
    ]
    assert texts[0] == texts[1] == texts[2]


def test_errors_are_rows_and_the_exit_code_of_the_first(cli: Cli, mine: str) -> None:
    ran = cli("map", mine, "-c", "64", stdin=text([FEW[0], {"prompt": "word " * 60, "id": 9}, {"prompt": 5}]))
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.code == 8
    assert ["error" in row for row in rows] == [False, True, True]
    assert (rows[1]["id"], rows[1]["text"], rows[1]["error"]["exit_code"]) == (9, None, 8)
    assert "error: 2 of 3 lines could not be answered; the first: " in ran.err


def test_a_key_that_means_nothing_is_an_error_row(cli: Cli, mine: str) -> None:
    lines = b"\n" + text([FEW[0]]) + b"  \n" + text([{**FEW[1], "tempo": 1}])
    ran = cli("map", mine, stdin=lines)
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [(row["index"], row["line"], "error" in row) for row in rows] == [(0, 2, False), (1, 4, True)]
    assert (ran.code, rows[1]["id"]) == (2, "n1")
    assert "the first: line 4: `tempo` means nothing here" in ran.err
    passed = cli("map", mine, "--ignore-unknown", stdin=lines)
    assert passed.code == 0
    assert [json.loads(line)["finish_reason"] for line in passed.out.splitlines()] == ["length", "length"]


def test_a_row_names_the_stop_that_ended_it(cli: Cli, mine: str) -> None:
    raw = {"raw": True, "temperature": 0}
    whole = json.loads(cli("map", mine, "-q", stdin=text([{"prompt": "abc", "max_tokens": 30, **raw}])).out)
    part = whole["text"][3:5]
    lines = [{"prompt": "abc", "max_tokens": 30, "stop": part, **raw}, {"prompt": "abc", "max_tokens": 3, **raw}]
    rows = [json.loads(line) for line in cli("map", mine, "-q", stdin=text(lines)).out.splitlines()]
    assert (rows[0]["stop"], rows[0]["finish_reason"]) == (part, "stop")
    assert whole["text"].startswith(rows[0]["text"])
    assert "stop" not in rows[1]


def test_an_answer_that_was_begun_is_gone_on_with(cli: Cli, mine: str) -> None:
    """The same tokens as if the model had written the beginning: no end of the turn, no beginning of another."""
    user = {"role": "user", "content": "tell me"}
    begun = {"messages": [user, {"role": "assistant", "content": "Once upon"}]}
    raw = {"prompt": "<|im_start|>user\ntell me<|im_end|>\n<|im_start|>assistant\nOnce upon", "raw": True}
    lines = [{**row, "max_tokens": 6, "temperature": 0} for row in (begun, {**raw, "special": True})]
    ran = cli("map", mine, stdin=text(lines))
    assert ran.code == 0, ran.err
    first, second = (json.loads(line) for line in ran.out.splitlines())
    assert (first["text"], first["usage"]["prompt_tokens"]) == (second["text"], second["usage"]["prompt_tokens"])


def test_parts_are_the_text_they_hold_and_tools_answer(cli: Cli, mine: str) -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "tell me"}]}
    plain = {"role": "user", "content": "tell me"}
    tool = {"role": "tool", "content": "42", "name": "add"}
    lines = [{"messages": turns, "max_tokens": 6, "temperature": 0} for turns in ([parts], [plain], [plain, tool])]
    ran = cli("map", mine, stdin=text(lines))
    assert ran.code == 0, ran.err
    first, second, third = (json.loads(line) for line in ran.out.splitlines())
    assert first["text"] == second["text"]
    assert third["usage"]["prompt_tokens"] > second["usage"]["prompt_tokens"]


@pytest.mark.parametrize("way", ["hermes", "lfm2"])
def test_calls_of_tools_are_data_and_the_text_stays(cli: Cli, tmp_path: Path, way: str) -> None:
    """One calls, one writes a call that its tool does not take, one has a tool whose schema is none."""
    city = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "weather", "description": "x", "parameters": city}}
    other = {"type": "function", "function": {"name": "other", "description": "x"}}
    broken = {"type": "function", "function": {"name": "weather", "parameters": {"type": 5}}}
    path = make_caller(tmp_path / way, way)
    lines = [{"prompt": "Paris?", "temperature": 0, "tools": [one]} for one in (tool, other, broken)]
    rows = [json.loads(line) for line in cli("map", str(path), stdin=text(lines)).out.splitlines()]
    (call,) = rows[0]["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    assert "tool_calls" not in rows[1]
    assert rows[0]["text"] == rows[1]["text"]
    assert "no schema" in rows[2]["error"]["message"]


def test_tools_that_a_template_cannot_tell_of_are_refused(cli: Cli, mine: str) -> None:
    """The tools of a line, and the calls of a conversation: neither is passed over."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked, answer = {"role": "user", "content": "hi"}, {"role": "tool", "tool_call_id": "c", "content": "42"}
    called = [asked, {"role": "assistant", "content": None, "tool_calls": [call]}, answer]
    lines = [{"prompt": "hi", "max_tokens": 2, "tools": [tool]}, {"messages": called, "max_tokens": 2}]
    ran = cli("map", mine, stdin=text(lines))
    first, second = (json.loads(line)["error"] for line in ran.out.splitlines())
    assert (first["exit_code"], second["exit_code"], ran.code) == (2, 2, 2)
    assert "takes no tools" in first["message"]
    assert "knows no calls of tools" in second["message"]


def test_control_tokens_line_by_line(cli: Cli, mine: str) -> None:
    """Only where the line, or the command, says so; and only in raw prompts."""
    prompt = {"prompt": "<|im_start|>user\nhi<|im_end|>\n", "max_tokens": 2}
    lines = [{**prompt, "raw": True}, {**prompt, "raw": True, "special": True}, {**prompt, "special": True}, prompt]
    rows = [json.loads(line) for line in cli("map", mine, stdin=text(lines)).out.splitlines()]
    counts = [row["usage"] and row["usage"]["prompt_tokens"] for row in rows]
    assert counts[1] < counts[0] < counts[3]
    assert "`special` goes with `raw`" in rows[2]["error"]["message"]
    all_raw = cli("map", mine, "--raw", "--special", stdin=text([prompt, {**prompt, "special": False}])).out
    assert [json.loads(line)["usage"]["prompt_tokens"] for line in all_raw.splitlines()] == [counts[1], counts[0]]
    assert cli("map", mine, "--special").code == 2


@pytest.mark.parametrize("odd", ['"\\ud800"', '["a", {"b": "\\udfff"}]', "1e999", '{"a": -1e999}'])
def test_an_id_that_cannot_be_written_costs_its_line_alone(cli: Cli, mine: str, tmp_path: Path, odd: str) -> None:
    out = tmp_path / "out.jsonl"
    lines = f'{{"id": {odd}, "prompt": "a", "max_tokens": 2}}\n{{"id": 2, "prompt": "b", "max_tokens": 2}}\n'
    ran = cli("map", mine, "-o", str(out), stdin=lines.encode())
    first, second = (json.loads(line) for line in out.read_bytes().splitlines())
    assert ran.code == first["error"]["exit_code"] == 2
    assert (first["id"], second["id"], second["finish_reason"]) == (None, 2, "length")


def test_a_line_that_is_too_long_is_told_what_map_can_do(cli: Cli, mine: str) -> None:
    ran = cli("map", mine, "-c", "64", stdin=text([{"prompt": "a b c " * 100}]))
    error = json.loads(ran.out)["error"]
    assert (ran.code, error["exit_code"]) == (8, 8)
    assert "--ctx-size" in error["hint"]
    assert "--on-overflow" not in error["hint"]


def test_nothing_in_nothing_out(cli: Cli, mine: str) -> None:
    ran = cli("map", mine)
    assert (ran.code, ran.out) == (0, "")


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (("--resume",), 2, "`--resume` needs the file"),
        (("-np", "2,4"), 2, "--parallel has 2 numbers"),
        (("-np", "65"), 2, "parallel is 65"),
        (("-o", "/nowhere/out"), 4, "/nowhere/out: no such file"),
        (("/nowhere/in",), 4, "/nowhere/in: no such file"),
    ],
)
def test_bad_words(cli: Cli, mine: str, argv: tuple[str, ...], code: int, words: str) -> None:
    ran = cli("map", mine, *argv)
    assert ran.code == code
    assert words in ran.err


def test_head_ends_it_quietly(shell: Shell, tiny: Path, tmp_path: Path) -> None:
    lines = tmp_path / "in.jsonl"
    lines.write_bytes(text([*FEW] * 50))
    ran = shell(f"localinfer map {tiny} {lines} -q | head -1; echo ${{PIPESTATUS[0]}}")
    assert ran.stdout.splitlines()[-1] in (b"0", b"141")
    assert ran.stderr == b""


def test_ctrl_c_keeps_whole_rows_and_says_how_to_go_on(tiny: Path, tmp_path: Path) -> None:
    from tests.cli.conftest import ENTRY

    lines, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines.write_bytes(text([{**row, "max_tokens": 100} for row in FEW] * 200))
    with subprocess.Popen(
        [*ENTRY, "map", str(tiny), str(lines), "-o", str(out)], stderr=subprocess.PIPE, text=True
    ) as ran:
        while not (out.exists() and out.stat().st_size):
            time.sleep(0.05)
            assert ran.poll() is None
        ran.send_signal(signal.SIGINT)
        _, said = ran.communicate(timeout=30)
    assert ran.returncode == 130
    assert "the same command with `--resume` goes on" in said
    assert all(json.loads(line) for line in out.read_bytes().splitlines())


def test_scores_of_tokens(cli: Cli, mine: str) -> None:
    ran = cli("map", mine, "-q", "--logprobs", "2", stdin=text([FEW[0], {**FEW[1], "logprobs": 0}]))
    first, second = (json.loads(line) for line in ran.out.splitlines())
    assert [len(one["top_logprobs"]) for one in first["logprobs"]] == [2] * 3
    assert [len(one["top_logprobs"]) for one in second["logprobs"]] == [0] * 4
    assert bytes(byte for one in first["logprobs"] for byte in one["bytes"]).decode("utf-8", "replace")
    told = json.loads(cli("run", mine, str(FEW[0]["prompt"]), "-n", "3", "--json", "--logprobs", "2").out)
    assert told["logprobs"] == first["logprobs"]
    assert cli("run", mine, "x", "--logprobs", "2").code == 2


def test_given_texts_are_scored(cli: Cli, mine: str, tmp_path: Path) -> None:
    said = json.loads(cli("run", mine, "--raw", "tell me", "-n", "6", "--temp", "0", "--json", "--logprobs", "0").out)
    lines = text(
        [
            {"id": 1, "context": "tell me", "continuation": said["text"], "logprobs": 0},
            {"text": "tell me nothing"},
            {"text": "x", "context": "y"},
            {"text": "a"},
            {"text": "ab", "temperature": 1},
        ]
    )
    ran = cli("score", mine, "-q", stdin=lines)
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.code == 2
    assert ["error" in row for row in rows] == [False, False, True, True, True]
    assert rows[0]["greedy"]
    assert rows[0]["logprob"] == pytest.approx(sum(one["logprob"] for one in said["logprobs"]), abs=1e-3)
    assert rows[1].keys() == {"id", "index", "line", "request", "tokens", "logprob", "perplexity", "greedy"}
    kept = tmp_path / "rows.jsonl"
    assert cli("score", mine, "-q", "-np", "1", "-o", str(kept), stdin=lines).code == 2
    assert kept.read_bytes() == ran.out.encode()
    kept.write_bytes(kept.read_bytes()[:-40])
    assert cli("score", mine, "-q", "-o", str(kept), "--resume", stdin=lines).code == 2
    assert kept.read_bytes() == ran.out.encode()


def test_texts_become_vectors(cli: Cli, mine: str) -> None:
    lines = text([{"id": "a", "text": "the cat"}, {"text": "the dog"}, {"text": "the cat"}, {"prompt": "x"}])
    ran = cli("embed", mine, "-q", "--pool", "mean", stdin=lines)
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.code == 2
    assert "error" in rows[3]
    assert rows[0].keys() == {"id", "index", "line", "request", "tokens", "embedding"}
    assert rows[0]["embedding"] == rows[2]["embedding"] != rows[1]["embedding"]
    assert sum(value * value for value in rows[0]["embedding"]) == pytest.approx(1)
    unscaled = json.loads(cli("embed", mine, "-q", "--unscaled", stdin=text([{"text": "the cat"}])).out)
    assert sum(value * value for value in unscaled["embedding"]) != pytest.approx(1)


BATCH = [
    {
        "custom_id": f"c{i}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "any", "messages": [{"role": "user", "content": f"tell me {i} things"}], "max_tokens": 5},
    }
    for i in range(4)
]


def test_the_batch_form_of_openai(cli: Cli, mine: str, tmp_path: Path) -> None:
    from openai.types.chat import ChatCompletion

    asked = [*BATCH, {**BATCH[0], "url": "/v1/images"}, {**BATCH[0], "body": {**BATCH[0]["body"], "tempo": 1}}]  # type: ignore[dict-item]
    asked[1] = {**BATCH[1], "body": {**BATCH[1]["body"], "logprobs": True, "top_logprobs": 2}}  # type: ignore[dict-item]
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [["a"]]}}}
    asked[2] = {**BATCH[2], "body": {**BATCH[2]["body"], "response_format": shape, "max_tokens": 60}}  # type: ignore[dict-item]
    ran = cli("map", mine, "-q", stdin=text(asked))
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.code == 2
    assert [row["custom_id"] for row in rows] == ["c0", "c1", "c2", "c3", "c0", "c0"]
    assert [row["response"]["status_code"] for row in rows] == [200, 200, 200, 200, 400, 400]
    whole = [ChatCompletion.model_validate(row["response"]["body"]) for row in rows[:4]]
    assert next(one.usage.completion_tokens for one in whole if one.usage) == 5
    assert whole[1].choices[0].logprobs is not None
    assert json.loads(whole[2].choices[0].message.content or "") == ["a"]
    same = cli("map", mine, "-q", stdin=text([{"id": "c3", "messages": BATCH[3]["body"]["messages"], "max_tokens": 5}]))  # type: ignore[index]
    assert json.loads(same.out)["text"] == whole[3].choices[0].message.content
    kept = tmp_path / "rows.jsonl"
    assert cli("map", mine, "-q", "-o", str(kept), stdin=text(asked)).code == 2
    whole_file = kept.read_bytes()
    kept.write_bytes(whole_file[:-30])
    assert cli("map", mine, "-q", "-o", str(kept), "--resume", stdin=text(asked)).code == 2
    assert kept.read_bytes() == whole_file


def test_a_split_changes_no_answer(cli: Cli, mine: str) -> None:
    lines: list[object] = [{"id": i, "prompt": "tell me", "max_tokens": 12, "temperature": 1.5} for i in range(6)]
    lines += [{"prompt": f"say {i}", "max_tokens": 12, "temperature": 1.5} for i in range(3)]

    def said(rows: Sequence[object], *flags: str) -> list[tuple[str, int]]:
        ran = cli("map", mine, "-q", *flags, stdin=text(rows))
        return [(row["text"], row["seed"]) for row in map(json.loads, ran.out.splitlines())]

    whole = said(lines)
    assert len(set(whole)) == 9
    assert said(lines[5:]) + said(lines[:5]) == whole[5:] + whole[:5]
    assert not set(said(lines, "--seed", "1")) & set(whole)


def test_tables_in_and_out(cli: Cli, mine: str, tmp_path: Path) -> None:
    table, out = tmp_path / "asked.csv", tmp_path / "said.tsv"
    table.write_text('\ufeffid,note,question\na,x,"tell me, now"\nb,y,\nc,z,"two\nlines"\n', encoding="utf-8")
    ran = cli("map", mine, str(table), "--in-column", "question", "-n", "4", "-q", "-o", str(out))
    assert ran.code == 2  # the second row has no text
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [row["id"] for row in rows] == ["a", "b", "c"]
    lines = text([{"id": "a", "prompt": "tell me, now"}, {"id": "c", "prompt": "two\nlines"}])
    same = [json.loads(line) for line in cli("map", mine, "-n", "4", "-q", stdin=lines).out.splitlines()]
    assert [rows[0]["text"], rows[2]["text"]] == [row["text"] for row in same]
    assert json.loads(rows[0]["usage"]) == same[0]["usage"]
    assert json.loads(rows[1]["error"])["exit_code"] == 2
    vectors = cli("embed", mine, str(table), "--in-column", "note", "-q").out.splitlines()
    assert [json.loads(line)["id"] for line in vectors] == ["a", "b", "c"]
    assert cli("map", mine, str(table), "--in-column", "question", "-o", str(out)).code == 2  # it is there


@pytest.mark.parametrize("command", ["map", "score", "embed"])
def test_rows_of_more_or_fewer_cells_than_columns_are_errors(cli: Cli, mine: str, tmp_path: Path, command: str) -> None:
    table = tmp_path / "asked.csv"
    table.write_text("id,q,note\na,one,x\nb,one, two,x\nc,three\nd,four,y\n", encoding="utf-8")
    ran = cli(command, mine, str(table), "--in-column", "q", "-q", *(["-n", "2"] if command == "map" else []))
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert (ran.code, [row["id"] for row in rows]) == (2, ["a", "b", "c", "d"])
    told = [(row.get("error") or {}).get("message") for row in rows]
    assert told[0] is told[3] is None
    assert told[1:3] == [f"the row has {cells} cells, and the table 3 columns" for cells in (4, 2)]


@pytest.mark.parametrize(
    ("content", "flags", "told"),
    [
        (b"a,b\n1,2\n", ["--in-column", "c"], "has no column `c`"),
        (b"a,b\n1,2\n", [], "is a table"),
        (b"", ["--in-column", "a"], "has no column"),
        (b"a,b,a\n1,2,3\n", ["--in-column", "a"], "has 2 columns `a`"),
        (b"id,b,id\n1,2,3\n", ["--in-column", "b"], "has 2 columns `id`"),
        (b"a\n\xff\xfe\n", ["--in-column", "a"], "is not UTF-8"),
        (b'a\n"open', ["--in-column", "a"], "is no table"),
    ],
)
def test_what_is_no_table_is_told(
    cli: Cli, mine: str, tmp_path: Path, content: bytes, flags: list[str], told: str
) -> None:
    table = tmp_path / "asked.csv"
    table.write_bytes(content)
    ran = cli("map", mine, str(table), "-q", *flags)
    assert ran.code == 2
    assert told in ran.err
