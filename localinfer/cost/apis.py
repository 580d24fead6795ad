"""What a provider would have charged for the same tokens, by the bundled prices of `genai-prices`. Never the network.

The same open model is looked for by name at every provider that the data knows; who is cheapest counts, which is the
comparison that flatters us least.
"""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from localinfer.errors import LocalInferError, UsageError
from localinfer.formats.durable import write_json
from localinfer.formats.json_files import read_object, shown
from localinfer.paths import prices_file

OUTPUT_SHARE = 0.25
"""Part of all tokens that are written, when providers are compared: a chat sends its whole past each time."""

_FORMS = re.compile(r"[-_.]?(fp8|fp4|bf16|fp16|int8|int4|awq|gptq|turbo|fast|lite|free|instant|chat|it|instruct|hf)$")


@dataclass(frozen=True, slots=True)
class Offer:
    """One model at one provider. US dollars a million tokens."""

    model: str
    """As the provider calls it: `provider/model`."""
    usd_read: float
    usd_written: float
    source: str

    def charge(self, read: int, written: int) -> float:
        """US dollars for so many tokens of prompts and of answers; what a provider remembers is not made cheaper."""
        return (read * self.usd_read + written * self.usd_written) / 1e6

    @property
    def blended(self) -> float:
        """A million tokens, `OUTPUT_SHARE` of them written."""
        return (1 - OUTPUT_SHARE) * self.usd_read + OUTPUT_SHARE * self.usd_written


def plain_name(name: str) -> str:
    """`meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo` → `llama3.1-8b`: what the same model has in common everywhere."""
    last = name.rpartition("/")[2].lower().partition(":")[0].removeprefix("meta-")
    while (shorter := _FORMS.sub("", last)) != last and shorter:
        last = shorter
    return last.replace("_", "-").replace("llama-", "llama").replace("qwen-", "qwen").replace("gemma-", "gemma")


def offers_of(name: str, now: datetime | None = None) -> list[Offer]:
    """Who serves the model `name` (`org/name`), cheapest first; empty where nobody is known to."""
    wanted = plain_name(name)
    found = [offer for ref, offer in _offers(now) if plain_name(ref) == wanted]
    return sorted(found, key=lambda offer: (offer.blended, offer.model))


def offer_named(ref: str, now: datetime | None = None) -> Offer:
    """The offer `provider/model`. Raises `UsageError` when the data has none of that name."""
    from difflib import get_close_matches

    known = {offer.model.lower(): offer for _, offer in _offers(now)}
    if ref.lower() not in known:
        near = get_close_matches(ref.lower(), known, n=1, cutoff=0.4)
        hint = f"write it as `provider/model`, such as `{known[near[0]].model if near else 'openai/gpt-5-mini'}`"
        raise UsageError(f"`{shown(ref[:60])}` is no model whose price is known", hint=hint)
    return known[ref.lower()]


def would_charge(model: str, api_model: str | None) -> Offer | None:
    """The offer to compare `model` with: `api_model` if it was named, else the cheapest of the same open model.

    Kept for the day in `prices_file()`: reading all prices takes half a second. Raises `UsageError` as `offer_named`.
    """
    key = f"{_version()} {datetime.now(UTC):%Y-%m-%d} {api_model or plain_name(model)}"
    cached = _cached()
    if key in cached:
        entry = cached[key]
        try:
            return None if entry is None else Offer(**entry)
        except TypeError:
            pass  # of another version: looked up anew
    offers = [offer_named(api_model)] if api_model else offers_of(model)
    found = offers[0] if offers else None
    _keep({**cached, key: asdict(found) if found else None})
    return found


def _offers(now: datetime | None) -> Iterator[tuple[str, Offer]]:
    """Every model with a price a token at every provider: its name there, and the offer."""
    from genai_prices.data_snapshot import get_snapshot

    at, source = now or datetime.now(UTC), f"genai-prices {_version()}"
    for provider in get_snapshot().providers:
        for model in provider.models:
            prices = None if model.deprecated else _prices(model, at)
            if prices is not None:
                yield model.id, Offer(f"{provider.id}/{model.id}", *prices, source)


def _prices(model: Any, at: datetime) -> tuple[float, float] | None:
    """US dollars a million tokens (read, written), of small requests; None for what is free or priced otherwise."""
    price = model.get_prices(at)
    found = []
    for name in ("input_mtok", "output_mtok"):
        value = getattr(price, name, None)
        value = getattr(value, "base", value)  # in tiers by length: the first
        if value is None:
            return None
        found.append(float(value))
    return (found[0], found[1]) if found[1] > 0 else None


def _version() -> str:
    import importlib.metadata  # slow to import

    return importlib.metadata.version("genai-prices")


def _cached() -> dict[str, Any]:
    try:
        return read_object(prices_file())
    except LocalInferError:
        return {}


def _keep(entries: dict[str, Any]) -> None:
    """Today's only. A home that cannot be written means to look again."""
    today = f" {datetime.now(UTC):%Y-%m-%d} "
    try:
        prices_file().parent.mkdir(parents=True, exist_ok=True)
        write_json(prices_file(), {key: value for key, value in entries.items() if today in key})
    except (LocalInferError, OSError):
        return
