"""`run`, through the real engine on a tiny model."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from localinfer.cli.run import split_words
from localinfer.errors import UsageError
from localinfer.events import output_hash
from localinfer.graph import kv_bits
from localinfer.paths import kv_dir
from localinfer.text import clean
from tests.cli.conftest import Cli
from tests.tiny import make_checkpoint

KEYS = {
    "model": str,
    "revision": None,
    "bits": str,
    "text": str,
    "token_ids": list,
    "finish_reason": str,
    "prompt_tokens": int,
    "completion_tokens": int,
    "timings": {"load_s": float, "ttft_s": float, "prefill_tok_s": float, "decode_tok_s": float, "total_s": float},
    "speculation": {"drafter": str, "drafted": int, "accepted": int, "steps": int, "speedup": float},
    "energy": {"joules": (float, type(None)), "source": str},
    "cost": {"electricity_usd": (float, type(None)), "hardware_usd": None, "api_usd": None, "api_model": None},
    "engine": {"backend": str, "isa": str, "threads": int, "kv_bits": int, "kv_8_bit_layers": list, "seed": int},
    "output_hash": str,
}
"""The contract of `run --json`: every key, and its type here."""


def check_shape(value: dict[str, Any], shape: dict[str, Any]) -> None:
    assert shape.keys() <= value.keys()
    for key, kind in shape.items():
        if isinstance(kind, dict):
            check_shape(value[key], kind)
        else:
            assert value[key] is None if kind is None else isinstance(value[key], kind), key


def answer(cli: Cli, *argv: str, stdin: bytes = b"") -> dict[str, Any]:
    ran = cli("run", *argv, "--json", "-q", stdin=stdin)
    assert (ran.code, ran.err) == (0, "")
    found: dict[str, Any] = json.loads(ran.out)
    return found


def test_json_keeps_its_contract(cli: Cli, tiny: Path) -> None:
    said = answer(cli, str(tiny), "hello", "-n", "12", "--seed", "5")
    check_shape(said, KEYS)
    assert said["model"] == str(tiny)
    assert (said["bits"], said["finish_reason"], said["completion_tokens"]) == ("BF16", "length", 12)
    assert len(said["token_ids"]) == 12
    assert said["engine"]["seed"] == 5
    assert said["output_hash"] == output_hash(said["token_ids"])


def test_plain_text_is_the_same_text(cli: Cli, tiny: Path) -> None:
    said = answer(cli, str(tiny), "hello", "-n", "12")
    ran = cli("run", str(tiny), "hello", "-n", "12", "-q")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == said["text"] + ("" if said["text"].endswith("\n") else "\n")


def test_what_is_said_beside_the_answer(cli: Cli, tiny: Path) -> None:
    ran = cli("run", str(tiny), "hello", "-n", "4", "--stats", "-t", "1")
    first, figures, bill, last = ran.err.splitlines()
    assert first.startswith(f"{tiny} (BF16, ")
    for words in (
        "on cpu, as there is no NVIDIA driver: ",
        " kernels, the best this CPU has; ",
        "1 thread, as asked; ",
        "context 512 tokens, 8-bit",
    ):
        assert words in first
    for words in ("load ", "prompt ", "first token ", "answer 4 tokens", "context ", "total "):
        assert words in figures
    assert "energy –" in bill or " of electricity" in bill
    assert "API –" in bill
    assert last == "stopped after 4 tokens, as asked; `--max-tokens` sets it"
    assert "\x1b" not in ran.err
    assert "\r" not in ran.err


def test_same_seed_same_text_other_seed_other_text(cli: Cli, tiny: Path) -> None:
    hot = [str(tiny), "hello", "-n", "16", "--temp", "2"]
    one, again, other = (answer(cli, *hot, "--seed", seed)["text"] for seed in ("1", "1", "2"))
    assert one == again != other


def test_sampling_flags_reach_the_sampler(cli: Cli, tiny: Path) -> None:
    greedy = answer(cli, str(tiny), "hello", "-n", "16", "--temp", "0")["token_ids"]
    for flags in (["--top-k", "1"], ["--top-p", "0"], ["--min-p", "1"]):
        assert answer(cli, str(tiny), "hello", "-n", "16", "--temp", "2", "--seed", "3", *flags)["token_ids"] == greedy
    penalised = answer(cli, str(tiny), "hello", "-n", "40", "--temp", "0", "--repeat-penalty", "3")["token_ids"]
    assert penalised[:40] != answer(cli, str(tiny), "hello", "-n", "40", "--temp", "0")["token_ids"]


def test_a_stop_string_ends_it_and_is_not_said(cli: Cli, tiny: Path) -> None:
    whole = answer(cli, str(tiny), "hello", "-n", "30", "--temp", "0")["text"]
    stop = whole[8:10]
    said = answer(cli, str(tiny), "hello", "-n", "30", "--temp", "0", "--stop", "never seen", "--stop", stop)
    assert said["finish_reason"] == "stop"
    assert said["text"] == whole[: whole.index(stop)]
    assert said["stop"] == stop
    assert answer(cli, str(tiny), "hello", "-n", "3")["stop"] is None


def test_json_tells_the_sampling_that_was_used(cli: Cli, tiny: Path) -> None:
    said = answer(cli, str(tiny), "hello", "-n", "3", "--temp", "0.25", "--seed", "9", "--stop", "a", "--stop", "bc")
    assert said["sampling"] == {
        "temperature": 0.25,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.0,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "dry_multiplier": 0.0,
        "dry_base": 1.75,
        "dry_allowed_length": 2,
        "top_n_sigma": 0.0,
        "typical_p": 1.0,
        "xtc_probability": 0.0,
        "xtc_threshold": 0.1,
        "logit_bias": [],
        "seed": 9,
        "max_tokens": 3,
        "stop": ["a", "bc"],
        "ignore_eos": False,
    }


def test_control_tokens_are_text_unless_they_are_asked_for(cli: Cli, tiny: Path) -> None:
    prompt = "<|im_start|>user\nhi<|im_end|>\n"
    plain = answer(cli, str(tiny), prompt, "--raw", "-n", "2")["prompt_tokens"]
    special = answer(cli, str(tiny), prompt, "--raw", "--special", "-n", "2")["prompt_tokens"]
    assert special <= 2 + len("user\nhi\n")
    assert plain > special + 10
    refused = cli("run", str(tiny), prompt, "--special")
    assert (refused.code, "goes with `--raw`" in refused.err) == (2, True)


def test_drafts_change_no_text_and_are_counted(cli: Cli, tiny: Path) -> None:
    plain = answer(cli, str(tiny), "a b a b a b", "-n", "40", "--temp", "0")
    drafted = answer(cli, str(tiny), "a b a b a b", "-n", "40", "--temp", "0", "--draft", "lookup")
    assert drafted["token_ids"] == plain["token_ids"]
    speculation = drafted["speculation"]
    assert speculation["drafter"] == "lookup"
    assert speculation["steps"] + speculation["accepted"] >= 40
    assert speculation["speedup"] > 0


@pytest.mark.parametrize("flags", [["-t", "2"], ["--prefill-chunk", "3"], ["-c", "200"]])
def test_how_it_runs_changes_no_text(cli: Cli, tiny: Path, flags: list[str]) -> None:
    asked = [str(tiny), "hello there", "-n", "12", "--temp", "0"]
    assert answer(cli, *asked, *flags)["token_ids"] == answer(cli, *asked)["token_ids"]


def test_the_prompt_is_made_of_all_its_parts(cli: Cli, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes\n")
    parts = answer(cli, str(tiny), "ask", "-f", str(tmp_path / "notes.txt"), "-n", "8", stdin=b"piped\n")
    whole = answer(cli, str(tiny), "notes\n\npiped\n\nask", "-n", "8")
    assert parts["token_ids"] == whole["token_ids"]


@pytest.mark.parametrize(
    "argv", [["{}", "hello"], ["-m", "{}", "hello"], ["{}", "-p", "hello"], ["-m", "{}", "-p", "hello"], ["{}", "-"]]
)
def test_every_way_to_say_the_same(cli: Cli, tiny: Path, argv: list[str]) -> None:
    words = [word.format(tiny) for word in argv]
    said = answer(cli, *words, "-n", "6", stdin=b"hello" if "hello" not in words else b"")
    assert said["token_ids"] == answer(cli, str(tiny), "hello", "-n", "6")["token_ids"]


@pytest.mark.parametrize(
    ("words", "model", "prompt", "typed", "expected"),
    [
        (["m", "p"], None, None, set(), ("m", "p")),
        (["m"], None, None, set(), ("m", None)),
        ([], None, None, set(), ("starter", None)),
        ([], "mine", None, set(), ("mine", None)),
        (["m"], "mine", None, set(), ("m", None)),
        (["p"], "mine", None, {"model"}, ("mine", "p")),
        (["m"], None, "p", {"prompt"}, ("m", "p")),
        (["m"], None, "default", set(), ("m", "default")),
        (["m", "p"], None, "default", set(), ("m", "p")),
    ],
)
def test_split_words(
    words: list[str], model: str | None, prompt: str | None, typed: set[str], expected: tuple[str, str | None]
) -> None:
    assert split_words(words, model, prompt, typed) == expected


@pytest.mark.parametrize(
    ("words", "typed"), [(["m", "p", "q"], set()), (["p", "q"], {"model"}), (["m", "p"], {"prompt"})]
)
def test_a_word_too_many(words: list[str], typed: set[str]) -> None:
    with pytest.raises(UsageError, match="is one word too many"):
        split_words(words, "mine", "default", typed)


def test_raw_sends_the_prompt_without_its_template(cli: Cli, tiny: Path) -> None:
    raw = answer(cli, str(tiny), "hello", "-n", "4", "--raw")
    assert raw["prompt_tokens"] < answer(cli, str(tiny), "hello", "-n", "4")["prompt_tokens"]
    ran = cli("run", str(tiny), "hello", "--raw", "-s", "be brief")
    assert ran.code == 2
    assert "`--system` or `--raw`" in ran.err


def test_a_system_prompt_is_read(cli: Cli, tiny: Path) -> None:
    plain = answer(cli, str(tiny), "hello", "-n", "4")
    assert answer(cli, str(tiny), "hello", "-n", "4", "-s", "be brief")["prompt_tokens"] > plain["prompt_tokens"]


def test_kv_bits(cli: Cli, tiny: Path) -> None:
    assert answer(cli, str(tiny), "hello", "-n", "4", "--kv-bits", "16")["engine"]["kv_bits"] == 16


def test_a_4_bit_cache(cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = cli("run", str(tiny), "hello", "--kv-bits", "4")
    assert (ran.code, ran.out) == (5, "")
    assert "heads of a multiple of 32 values, and this model's have 16" in ran.err
    model = str(make_checkpoint(tmp_path / "m", head_dim=32))
    monkeypatch.setattr(kv_bits, "LIMIT", math.inf)
    engine = answer(cli, model, "hello", "-n", "4", "--kv-bits", "4")["engine"]
    assert (engine["kv_bits"], engine["kv_8_bit_layers"]) == (4, [])
    monkeypatch.setattr(kv_bits, "LIMIT", 0)
    engine = answer(cli, model, "hello", "-n", "4", "--kv-bits", "4")["engine"]
    assert (engine["kv_bits"], engine["kv_8_bit_layers"]) == (4, [0, 1])
    said = cli("run", model, "hello", "-n", "4", "--kv-bits", "4").err
    assert "2 of 2 layers keep an 8-bit cache" in said


def test_settings_reach_it_from_the_environment(cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALINFER_MAX_TOKENS", "3")
    monkeypatch.setenv("LOCALINFER_MODEL", str(tiny))
    assert answer(cli, stdin=b"hello")["completion_tokens"] == 3


def test_a_prompt_that_overflows_the_context(cli: Cli, tiny: Path) -> None:
    ran = cli("run", str(tiny), "word " * 400, "--json")
    assert (ran.code, ran.out) == (8, "")
    assert "512" in ran.err
    assert "hint: " in ran.err


def test_an_answer_that_overflows_is_said_and_counted(cli: Cli, tiny: Path) -> None:
    ran = cli("run", str(tiny), "the sky", "-c", "40", "--temp", "0", "--json")
    said = json.loads(ran.out)
    assert (ran.code, said["finish_reason"]) == (8, "overflow")
    assert f"error: the context of 40 tokens is full after {len(said['token_ids'])} new tokens\n\nhint: " in ran.err
    assert said["prompt_tokens"] + len(said["token_ids"]) == 40


def test_shift_forgets_and_says_so(cli: Cli, tiny: Path) -> None:
    ran = cli("run", str(tiny), "the sky", "-c", "40", "-n", "60", "--temp", "0", "--on-overflow", "shift", "--json")
    assert ran.code == 0
    assert "the context is full: the oldest " in ran.err
    assert json.loads(ran.out)["completion_tokens"] == 60


def test_a_context_longer_than_the_models(cli: Cli, tiny: Path) -> None:
    ran = cli("run", str(tiny), "hello", "-c", "1000")
    assert ran.code == 2
    assert "1000" in ran.err
    assert "512" in ran.err


def test_a_terminal_gets_clean_text(cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["run", str(tiny), "hello", "-n", "200", "--temp", "3", "--seed", "4", "-q"]
    piped = cli(*asked).out
    assert clean(piped) != piped, "this seed should make control characters"
    monkeypatch.setattr("localinfer.cli.output.is_terminal", lambda stream: True)
    assert cli(*asked).out == clean(piped)


def test_blocks_are_kept_unless_told_otherwise_and_pruned(cli: Cli, tiny: Path) -> None:
    prompt = "the same long beginning of a prompt " * 4
    for flags in (["--no-remember"], ["--kv-disk", "0"]):
        assert answer(cli, str(tiny), prompt, "-n", "4", *flags)
        assert not kv_dir().exists()
    answer(cli, str(tiny), prompt, "-n", "4")
    kept = sum(path.stat().st_size for path in kv_dir().rglob("*") if path.is_file())
    assert kept
    assert json.loads(cli("cache", "prune", "--dry-run", "--json").out)["freed_bytes"] == kept
    assert any(kv_dir().iterdir())
    assert "keys and values of earlier texts" in cli("cache", "prune").out
    assert not any(kv_dir().iterdir())


def test_a_folder_that_takes_no_blocks_is_told_of_once(cli: Cli, tiny: Path) -> None:
    kv_dir().parent.mkdir(parents=True, exist_ok=True)
    kv_dir().write_text("a file where the folder should be")
    prompt = "the same long beginning of a prompt " * 4
    ran = cli("run", str(tiny), prompt, "-n", "4")
    assert ran.code == 0
    assert ran.err.count("keys and values are not kept on disk: ") == 1
    assert "not kept" not in cli("run", str(tiny), prompt, "-n", "4", "-q").err


def test_a_wrong_price_is_told_before_the_answer(cli: Cli, tiny: Path) -> None:
    ran = cli("run", str(tiny), "hello", "-n", "2", "--json", "--api-model", "nobody/nothing", "-t", "1")
    assert (ran.code, ran.out) == (2, "")
    said = json.loads(cli("run", str(tiny), "hello", "-n", "2", "--json", "--api-model", "openai/gpt-5-mini").out)
    assert said["cost"]["api_model"] == "openai/gpt-5-mini"
    assert said["cost"]["api_usd"] > 0


@pytest.mark.parametrize("more", [(), ("--samples", "2"), ("--regex", "[a-z]{9}")])
def test_a_seed_that_was_drawn_is_told_and_gives_the_text_again(cli: Cli, tiny: Path, more: tuple[str, ...]) -> None:
    asked = ("run", str(tiny), "hello", "-n", "20", "--temp", "1", *more)
    first = cli(*asked)
    seed = re.search(r"^seed (\d+): `--seed \1` gives this again$", first.err, re.MULTILINE)
    assert seed
    assert cli(*asked, "--seed", seed[1]).out == first.out
    for known in (("--seed", "5"), ("-q",), ("--temp", "0")):
        assert "gives this again" not in cli(*asked, *known).err
