"""Whether a model thinks before it answers, by the switch of its own chat template.

Templates call the switch by different names; which one a template has is tried out: its text is another with the
switch on than with it off. The names are those of Qwen3, SmolLM3, GLM, EXAONE and Hunyuan (`enable_thinking`), of
Granite and DeepSeek (`thinking`), and of Mistral (`reasoning_effort`, where `none` is one of its words).
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from localinfer.chats import sandbox
from localinfer.chats.thinking import CLOSING
from localinfer.errors import LocalInferError, NotSupported
from localinfer.formats.channels import CHANNEL

_SWITCHES: tuple[tuple[str, Any, Any], ...] = (
    ("enable_thinking", True, False),
    ("thinking", True, False),
    ("reasoning_effort", "high", "none"),
)
_PROBE = {
    "messages": [{"role": "user", "content": "x"}],
    "add_generation_prompt": True,
    "bos_token": "",
    "eos_token": "",
    "tools": None,
    "documents": None,
}


@lru_cache(maxsize=64)
def switch_of(template: str) -> tuple[str, Any, Any] | None:
    """The name of the template's switch, and its values for on and off; None where it has none."""
    for name, on, off in _SWITCHES:
        if name not in template or (isinstance(off, str) and f'"{off}"' not in template and f"'{off}'" not in template):
            continue
        try:
            texts = [sandbox.render(template, {**_PROBE, name: value}) for value in (on, off)]
        except LocalInferError:
            continue  # it refuses one of them, or the probe
        if texts[0] != texts[1]:
            return name, on, off
    return None


def thinking_variables(template: str | None, think: bool | None) -> Mapping[str, Any]:
    """What to tell the template so that the model thinks, or does not; None leaves that to the template.

    Raises `NotSupported` where it cannot be told: for a model that always thinks, or never does.
    """
    if think is None:
        return {}
    template = template or ""
    if (switch := switch_of(template)) is not None:
        name, on, off = switch
        return {name: on if think else off}
    if think == (CLOSING in template or CHANNEL in template):
        return {}  # it does so without being told
    what = "always thinks" if not think else "does not think"
    raise NotSupported(
        f"this model {what}: its chat template has no switch for it",
        hint=f"leave `--{'' if think else 'no-'}think` out, or choose another model",
    )
