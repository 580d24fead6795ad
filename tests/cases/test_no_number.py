"""Finite weights whose activations overflow float32: the answer ends with an error, what was said before stays."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localinfer.chats.chat import Chat
from localinfer.config import SamplingParams
from localinfer.errors import NotFinite
from localinfer.events import Started, Text
from tests.cases.right import ours
from tests.cli.conftest import Cli
from tests.engine.running import open_tiny
from tests.engine.trap import make_trap
from tests.tiny import make_checkpoint, random_weights, tiny_config, write_weights

TEXT = "Hello"


def overflowing(path: Path, by: float) -> Path:
    """By 3e38 sums of products are infinite, and all is NaN; by 3e37 only squares are, and norms make zeros of that."""
    make_checkpoint(path)
    weights = random_weights(tiny_config("llama"), seed=0)
    for name, value in weights.items():
        if "down_proj" in name or "o_proj" in name:
            value *= np.float32(by)
    write_weights(path, weights, "bfloat16")
    return path


def logits_of_transformers(path: Path) -> Any:
    import torch
    import transformers

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.tensor([[39, 68, 75]])).logits


@pytest.mark.parametrize("temperature", ["0", "0.7"])
@pytest.mark.parametrize("draft", ["off", "lookup", "early"])
@pytest.mark.parametrize("kv_bits", ["16", "8"])
@pytest.mark.parametrize("by", [3e38, 3e37])
def test_nothing_is_chosen_from_nan(
    cli: Cli, tmp_path: Path, by: float, temperature: str, draft: str, kv_bits: str
) -> None:
    path = overflowing(tmp_path / "m", by)
    logits = logits_of_transformers(path)
    assert bool((logits.isnan() if by > 1e38 else logits == 0).all())
    flags = ["--temp", temperature, "--draft", draft, "--kv-bits", kv_bits, "-n", "6"]
    ran = cli("run", str(path), "--raw", TEXT, *flags)
    assert (ran.code, ran.out.strip()) == (7, "")
    assert "step 1 of the answer" in ran.err
    assert "NaN" in ran.err
    said = json.loads(cli("run", str(path), "--raw", TEXT, "--json", *flags).out)
    assert (said["token_ids"], said["finish_reason"]) == ([], "error")


@pytest.fixture
def trapped(cli: Cli, tmp_path: Path) -> tuple[Path, list[int]]:
    """A model whose answer to `TEXT` runs into NaN, and that answer up to there."""
    tokens = ours(cli, make_trap(tmp_path / "harmless", 300), TEXT, 24)
    at = next(at for at in range(4, 20) if tokens[at] not in (*TEXT.encode(), *tokens[:at]))
    return make_trap(tmp_path / "trap", tokens[at]), tokens[: at + 1]


def test_what_was_said_before_stays(cli: Cli, trapped: tuple[Path, list[int]]) -> None:
    path, tokens = trapped
    flags = ["--raw", TEXT, "-n", "24", "--temp", "0", "--kv-bits", "16", "-q"]
    ran = cli("run", str(path), *flags, "--json")
    said = json.loads(ran.out)
    assert (ran.code, said["finish_reason"], said["token_ids"]) == (7, "error", tokens)
    ran = cli("run", str(path), *flags)
    assert (ran.code, ran.out.rstrip("\n")) == (7, said["text"].rstrip("\n"))
    assert f"step {len(tokens) + 1} of the answer" in ran.err


def test_a_chat_keeps_what_was_said(cli: Cli, trapped: tuple[Path, list[int]]) -> None:
    path, tokens = trapped
    with open_tiny(path, kv_bits=16) as engine:
        chat = Chat(engine, raw=True, sampling=SamplingParams(temperature=0, max_tokens=24))
        events = chat.reply(TEXT)
        texts: list[str] = []
        with pytest.raises(NotFinite, match=f"step {len(tokens) + 1} of the answer"):
            texts.extend(event.text for event in events if isinstance(event, Text))
        assert [message.content for message in chat.messages] == [TEXT, "".join(texts)]
        assert "".join(texts) == engine.tokenizer.decode(tokens)
        assert isinstance(next(iter(chat.reply("one"))), Started)  # and goes on


def test_one_line_of_many(cli: Cli, trapped: tuple[Path, list[int]]) -> None:
    """`map` tells it in that line's row; the others are those of a model without the trap."""
    path, _ = trapped
    lines = b"".join(b'{"prompt": "%s"}\n' % text for text in (b"one", TEXT.encode(), b"three"))
    flags = ["--raw", "-n", "24", "--temp", "0", "--kv-bits", "16", "-q"]
    ran = cli("map", str(path), *flags, stdin=lines)
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.code == 7
    assert [row["finish_reason"] for row in rows] == ["length", None, "length"]
    assert rows[1]["error"]["exit_code"] == 7
    assert "NaN" in rows[1]["error"]["message"]
    clean = cli("map", str(path.parent / "harmless"), *flags, stdin=lines)
    assert [json.loads(line)["text"] for line in clean.out.splitlines()][::2] == [row["text"] for row in rows][::2]
