"""The flags for what running a model costs. Part of `options`."""

from typing import Annotated

from localinfer.cli.flags import flag

UsdPerKwh = Annotated[
    float,
    flag("usd-per-kwh", "float", "Price of electricity, US dollars.", low=0, high=100, default=0.2),
]
Watts = Annotated[
    float | None,
    flag(
        "watts",
        "float",
        "What this machine draws while it works, measured at the socket.",
        low=0,
        high=1e6,
        shows="the processor's counters, else an estimate that is marked",
    ),
]
HardwareUsd = Annotated[
    float | None,
    flag("hardware-usd", "float", "What this machine cost, US dollars.", low=0, high=1e9, shows="nothing: it is there"),
]
HardwareYears = Annotated[
    float, flag("hardware-years", "float", "How long a machine serves.", low=0.01, high=100, default=4.0)
]
ApiModel = Annotated[
    str | None,
    flag(
        "api-model",
        "text",
        "What to compare with at a provider, such as `openai/gpt-5-mini`.",
        metavar="PROVIDER/MODEL",
        shows="the same open model where it is cheapest",
    ),
]
TokensPerDay = Annotated[
    float | None,
    flag("tokens-per-day", "float", "Also tell what a million tokens cost at this volume.", low=1, high=1e15),
]
