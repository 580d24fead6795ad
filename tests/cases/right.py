"""What transformers says, and what `localinfer run` says, of one directory and one text."""

import json
from pathlib import Path
from typing import Any

from tests.cli.conftest import Cli

FLAGS = ("--temp", "0", "--json", "-q", "--no-remember", "--kv-bits", "16")


def greedy(path: Path, text: str, count: int) -> list[int]:
    """`count` greedy tokens after the plain `text`, the weights taken as they are stored and computed with in float32;
    fewer where the answer ends by itself."""
    import torch
    import transformers

    torch.set_num_threads(1)
    words: Any = transformers.utils.logging  # untyped
    words.set_verbosity_error()
    words.disable_progress_bar()
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(path)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    with torch.no_grad():
        out = model.generate(ids, do_sample=False, max_new_tokens=count, pad_token_id=0)
    return [int(token) for token in out[0, ids.shape[1] :] if int(token) != tokenizer.eos_token_id]


def ours(cli: Cli, path: Path, text: str, count: int, *more: str) -> list[int]:
    """The same through the command line."""
    ran = cli("run", str(path), "--raw", "-n", str(count), *FLAGS, *more, "-", stdin=text.encode())
    assert ran.code == 0, ran.err
    found: list[int] = json.loads(ran.out)["token_ids"]
    return found


def change_config(path: Path, **said: Any) -> None:
    """Put fields into config.json; `...` takes one out."""
    config = {**json.loads((path / "config.json").read_text()), **said}
    (path / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))
