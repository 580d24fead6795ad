"""The chat templates of a model directory, and which of them hold: as `transformers` (5.23) reads them.

`chat_template.jinja` and `additional_chat_templates/NAME.jinja` go before all that `tokenizer_config.json` says,
where a template may be one text or a list of named ones. What a processor would read (`chat_template.json`,
`processor_config.json`) is used where the tokenizer has none.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localinfer.errors import Corrupt
from localinfer.formats.json_files import read_bytes
from localinfer.formats.tokenizer_files import optional_object

FOLDER = "additional_chat_templates"
LIMIT = 1 << 20
"""Most bytes, or characters, of one template."""

MOST = 64
"""Templates of one model."""

DEFAULT, WITH_TOOLS = "default", "tool_use"
_AGAIN = "download the model again"


def read_templates(directory: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Templates by name; `config` is `tokenizer_config.json`. Raises `Corrupt` for one that is no text or too long."""
    files = sorted((directory / FOLDER).glob("*.jinja"))
    if len(files) > MOST:
        raise Corrupt(f"{directory}: has {len(files)} chat templates, at most {MOST} are read", hint=_AGAIN)
    found = {path.name.removesuffix(".jinja"): _text(path) for path in files}
    if (path := directory / "chat_template.jinja").exists():
        found[DEFAULT] = _text(path)
    if found:
        return found
    found = _named(directory / "tokenizer_config.json", config.get("chat_template"))
    for name in ("chat_template.json", "processor_config.json"):
        found = found or _named(directory / name, optional_object(directory / name).get("chat_template"))
    return found


def _text(path: Path) -> str:
    """The file's text, line ends as Python reads them."""
    try:
        text = read_bytes(path, LIMIT).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Corrupt(f"{path}: is not UTF-8 (byte {error.start})", hint=_AGAIN) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _named(path: Path, value: object) -> dict[str, str]:
    if isinstance(value, list):
        value = {item.get("name"): item.get("template") for item in value if isinstance(item, dict)}
    templates: dict[Any, Any] = value if isinstance(value, dict) else {} if value is None else {DEFAULT: value}
    if len(templates) > MOST:
        raise Corrupt(f"{path}: has {len(templates)} chat templates, at most {MOST} are read", hint=_AGAIN)
    for name, template in templates.items():
        if not isinstance(name, str) or not isinstance(template, str) or len(template) > LIMIT:
            raise Corrupt(f"{path}: `chat_template` must be text of at most {LIMIT} characters", hint=_AGAIN)
    return templates
