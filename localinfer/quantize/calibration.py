"""The text that shows a quantizer what a layer's inputs are like: our own, or the caller's, as sequences of 512 tokens.

The bundled text lies in `data/` (its README says what and whence). It holds nothing of the sets that models are judged
by. A sequence is cut from one kind of text; which ones are taken depends on the seed alone.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from localinfer.errors import LocalInferError, NotFound, NotSupported, UsageError
from localinfer.formats.json_files import shown
from localinfer.formats.tokenizer import Tokenizer

LENGTH = 512
"""Tokens of a sequence."""

DEFAULT_TOKENS = 32768
LEAST_SEQUENCES = 4
"""Below that, the second moments of the inputs say more about the text than about the model."""

BYTES_A_TOKEN = 3
"""Of text of many kinds, about."""

LARGEST_FILE = 64 << 20

Turns = Sequence[tuple[str, str]]
Render = Callable[[Tokenizer, Turns], list[int]]
"""A conversation of (role, text) as token ids, by the model's own chat template."""


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """What to calibrate on; see `calibration`."""

    tokens: int = DEFAULT_TOKENS
    seed: int = 0
    files: tuple[Path, ...] = ()
    render: Render | None = None


SHARES = {
    "prose.txt": 0.30,
    "technical.txt": 0.10,
    "languages.txt": 0.15,
    "chats.jsonl": 0.20,
    "code.txt": 0.15,
    "arithmetic.txt": 0.10,
}
"""The kinds of the bundled text, and how much of each is wanted."""


def calibration(
    tokenizer: Tokenizer, render: Render | None, tokens: int, seed: int, files: Sequence[Path] = ()
) -> NDArray[np.int32]:
    """About `tokens` tokens as int32 [sequences, 512], fewer if the text is short; `files` replace our own text.

    Each sequence begins with BOS if the model wants that. `.jsonl` files hold a conversation a line: a list of
    `{"role", "content"}`; they need `render`, without which the turns are taken as plain text. A line may also be a
    plain text, in quotes.

    Raises `UsageError` for text that is too short, not UTF-8, or no conversation; `NotFound` for a missing file.
    """
    rng = random.Random(seed)
    parts = _given(files) if files else _bundled()
    pools = [_sequences(_documents(name, data), tokenizer, render, rng) for name, data, _ in parts]
    wanted = max(LEAST_SEQUENCES, tokens // LENGTH)
    counts = _shared_out(wanted, [len(pool) for pool in pools], [share for _, _, share in parts])
    chosen = [sequence for pool, count in zip(pools, counts, strict=True) for sequence in pool[:count]]
    if len(chosen) < LEAST_SEQUENCES:
        raise UsageError(
            f"the calibration text is too short: {sum(map(len, chosen))} tokens in whole sequences of {LENGTH}, "
            f"and at least {LEAST_SEQUENCES * LENGTH} are needed",
            hint="give more with `--calib`, or leave it out to use the bundled text",
        )
    rng.shuffle(chosen)
    return np.array(chosen, np.int32)


def about_tokens(files: Sequence[Path] = ()) -> int:
    """How many tokens the text of `files` (none: our own) has, going by its bytes; files that are not there have none.

    `calibration` counts them; this is for estimates.
    """
    folder = resources.files("localinfer.quantize") / "data"
    sizes = [path.stat().st_size for path in files if path.is_file()]
    return sum(sizes if files else (len((folder / name).read_bytes()) for name in SHARES)) // BYTES_A_TOKEN


def _bundled() -> list[tuple[str, bytes, float]]:
    folder = resources.files("localinfer.quantize") / "data"
    return [(name, (folder / name).read_bytes(), share) for name, share in SHARES.items()]


def _given(files: Sequence[Path]) -> list[tuple[str, bytes, float]]:
    parts = []
    for path in files:
        try:
            with path.open("rb") as file:
                data = file.read(LARGEST_FILE + 1)
        except OSError as error:
            raise NotFound(
                f"{path}: cannot be read: {error.strerror}", hint="check the name after `--calib`"
            ) from error
        if len(data) > LARGEST_FILE:
            raise UsageError(
                f"{path}: is longer than {LARGEST_FILE >> 20} MiB", hint="a megabyte is plenty; give a part of it"
            )
        parts.append((str(path), data, float(len(data))))
    return parts


def _documents(name: str, data: bytes) -> list[str | Turns]:
    """The texts of one file: separated by a line `---`, or one conversation a line."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: is not UTF-8 at byte {error.start}", hint="convert it, or give another") from error
    if (at := data.find(0)) >= 0:
        raise UsageError(f"{name}: holds a zero byte at {at}, so it is no text", hint="give a file of text")
    if not name.endswith(".jsonl"):
        return [part.strip("\n") for part in text.replace("\r\n", "\n").split("\n---\n") if part.strip()]
    return [_line(line, f"{name}:{number}") for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def _line(line: str, where: str) -> str | Turns:
    try:
        value = json.loads(line)
        if isinstance(value, str):
            return value
        turns = [(message["role"], message["content"]) for message in value]
        if turns and all(isinstance(word, str) for turn in turns for word in turn):
            return turns
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise UsageError(
        f"{where}: {shown(line)} is no conversation", hint='a line looks like [{"role": "user", "content": "…"}, …]'
    )


def _sequences(
    documents: list[str | Turns], tokenizer: Tokenizer, render: Render | None, rng: random.Random
) -> list[list[int]]:
    """The documents in random order, one after the other, cut into sequences; what is left over is dropped."""
    rng.shuffle(documents)
    first = [tokenizer.bos_id] if tokenizer.adds_bos and tokenizer.bos_id is not None else []
    between = tokenizer.encode_text("\n\n")
    ids: list[int] = []
    for document in documents:
        ids += (
            (tokenizer.encode_text(document) + between)
            if isinstance(document, str)
            else _chat(document, tokenizer, render)
        )
    step = LENGTH - len(first)
    return [first + ids[i : i + step] for i in range(0, len(ids) - step + 1, step)]


def _chat(turns: Turns, tokenizer: Tokenizer, render: Render | None) -> list[int]:
    """A conversation by the template; without one, or if it refuses this conversation, as plain text."""
    if render is not None:
        try:
            return render(tokenizer, turns)
        except NotSupported:
            pass
        except LocalInferError:
            if turns[0][0] == "system":  # some templates know no system prompt
                return _chat(turns[1:], tokenizer, render) if len(turns) > 1 else []
    return tokenizer.encode_text("\n\n".join(text for _, text in turns) + "\n\n")


def _shared_out(wanted: int, sizes: Sequence[int], shares: Sequence[float]) -> list[int]:
    """`wanted` divided by `shares`; what one pool lacks is taken from the others. Largest remainders first."""
    counts = [0] * len(sizes)
    for _ in range(min(wanted, sum(sizes))):
        open_pools = [i for i in range(len(sizes)) if counts[i] < sizes[i]]
        counts[min(open_pools, key=lambda i: (counts[i] + 1) / max(shares[i], 1e-9))] += 1
    return counts
