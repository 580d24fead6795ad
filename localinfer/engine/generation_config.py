"""What a model's makers advise for sampling: generation_config.json, checked, and what of it is not followed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localinfer.config import SamplingParams
from localinfer.engine.sampling import TokenRules
from localinfer.errors import Corrupt
from localinfer.formats.json_files import CONFIG_LIMIT, read_object

MOST_STOPS = 64
MOST_TOKENS = 1 << 16
"""That a list of tokens or of sequences may hold, and a sequence."""

_AGAIN = "download the model again, or correct the file"

NOT_FOLLOWED: dict[str, tuple[object, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "penalty_alpha": (0, 0.0),
    "dola_layers": (),
    "epsilon_cutoff": (0, 0.0),
    "eta_cutoff": (0, 0.0),
    "top_h": (1, 1.0),
    "encoder_repetition_penalty": (1, 1.0),
    "no_repeat_ngram_size": (0,),
    "min_length": (0,),
    "min_new_tokens": (0,),
    "max_time": (),
    "force_words_ids": ([],),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "sequence_bias": ([], {}),
    "exponential_decay_length_penalty": (),
    "guidance_scale": (1, 1.0),
    "watermarking_config": ({},),
    "token_healing": (False,),
}
"""Keys that would change an answer, and the values with which they would not; null never does."""


def default_sampling(directory: Path) -> SamplingParams:
    """The advised settings; ours where the file, or a field of it, is missing.

    `do_sample: false` means the likeliest token, always. Raises `Corrupt` for a value that makes no sense.
    """
    path = directory / "generation_config.json"
    return sampling_from(read_object(path), str(path)) if path.exists() else SamplingParams()


def not_followed(directory: Path) -> tuple[str, ...]:
    """A line about what generation_config.json asks for and is not done here; none where all of it is."""
    path = directory / "generation_config.json"
    config = read_object(path, CONFIG_LIMIT) if path.exists() else {}
    found = [name for name, idle in NOT_FOLLOWED.items() if config.get(name) is not None and config[name] not in idle]
    return (
        (f"{path.name} asks for {', '.join(f'`{name}`' for name in found)}, which is not done here",) if found else ()
    )


def token_rules(directory: Path) -> TokenRules:
    """What generation_config.json says of single tokens. Raises `Corrupt` for what are no lists of token ids."""
    path = directory / "generation_config.json"
    return rules_from(read_object(path, CONFIG_LIMIT), str(path)) if path.exists() else TokenRules()


def rules_from(config: Mapping[str, Any], where: str) -> TokenRules:
    """As `token_rules`, from the file's content; `where` names it in errors. As transformers, sequences that are
    one of the tokens that end a text are no bad words."""
    said = config.get("bad_words_ids")
    bad = [] if said is None else said
    if not isinstance(bad, list) or len(bad) > MOST_TOKENS:
        raise Corrupt(f"{where}: `bad_words_ids` are not at most {MOST_TOKENS} lists of token ids", hint=_AGAIN)
    sequences = [_ids(sequence, "bad_words_ids", where) for sequence in bad]
    ends = config.get("eos_token_id")
    ended = ends if isinstance(ends, list) else [ends]
    usable = [one for one in sequences if one and not (len(one) == 1 and one[0] in ended)]
    never = _ids(config.get("suppress_tokens"), "suppress_tokens", where)
    return TokenRules(
        never=(*never, *(one[0] for one in usable if len(one) == 1)),
        never_first=_ids(config.get("begin_suppress_tokens"), "begin_suppress_tokens", where),
        never_after=tuple(one for one in usable if len(one) > 1),
        penalize_all=config.get("repetition_penalty") not in (None, 1),
    )


def _ids(value: object, name: str, where: str) -> tuple[int, ...]:
    ids = [] if value is None else value
    good = isinstance(ids, list) and len(ids) <= MOST_TOKENS
    if not isinstance(ids, list) or not good or not all(type(one) is int and abs(one) < 1 << 31 for one in ids):
        raise Corrupt(f"{where}: `{name}` is not a list of at most {MOST_TOKENS} token ids", hint=_AGAIN)
    return tuple(ids)


def sampling_from(config: Mapping[str, Any], where: str) -> SamplingParams:
    """As `default_sampling`, from the file's content; `where` names it in errors."""
    ours = SamplingParams()

    def number(name: str, low: float, high: float, default: float) -> float:
        value = config.get(name)
        if value is None:
            return default
        kind = "whole number" if isinstance(default, int) else "number"
        good = isinstance(value, int) or (isinstance(value, float) and kind == "number")
        if isinstance(value, bool) or not good or not low <= value <= high:
            raise Corrupt(f"{where}: `{name}` is {str(value)[:40]}, not a {kind} between {low} and {high}", hint=_AGAIN)
        return float(value) if kind == "number" else value

    temperature = number("temperature", 0.0, 100.0, ours.temperature)
    most = int(number("max_new_tokens", 0, 1 << 40, 0))
    return SamplingParams(
        temperature=0.0 if config.get("do_sample") is False else temperature,
        top_k=int(number("top_k", 0, 1 << 22, ours.top_k)),
        top_p=number("top_p", 0.0, 1.0, ours.top_p),
        min_p=number("min_p", 0.0, 1.0, ours.min_p),
        typical_p=number("typical_p", 0.0, 1.0, ours.typical_p),
        repeat_penalty=number("repetition_penalty", 0.01, 100.0, ours.repeat_penalty),
        max_tokens=most if 0 < most <= 1 << 20 else None,
        stop=_stops(config.get("stop_strings"), where),
    )


def _stops(value: object, where: str) -> tuple[str, ...]:
    listed = [] if value is None else value if isinstance(value, list) else [value]
    if len(listed) > MOST_STOPS or not all(isinstance(stop, str) and 0 < len(stop) < 4096 for stop in listed):
        raise Corrupt(f"{where}: `stop_strings` are not at most {MOST_STOPS} texts", hint=_AGAIN)
    return tuple(listed)
