"""`config`: settings that are remembered. Reads and writes the settings file; works also when that file is broken."""

import json as json_words
import os
import re
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from localinfer.cli import options as o
from localinfer.cli.command import name_unknown_variables
from localinfer.cli.options import SETTINGS
from localinfer.config import Setting, Value, load_config, unknown_key
from localinfer.errors import UsageError

Key = Annotated[str, typer.Argument(metavar="KEY", help="A flag's long name without dashes, such as `threads`.")]
Words = Annotated[list[str], typer.Argument(metavar="VALUE...", help="The value; several for a flag that repeats.")]

SECRET = "(set)"


def show(*, json: o.Json) -> None:
    """Show every setting that is not at its default, and where it comes from; `--json` shows all."""
    from localinfer.cli.output import line, note, show_json
    from localinfer.paths import config_file

    values = load_config(SETTINGS, {}, file=config_file())
    name_unknown_variables()
    if json:
        show_json({name: {"value": shown(name, value), "origin": value.origin} for name, value in values.items()})
        return
    for name, value in changed(values).items():
        line(f"{name} = {toml_words(shown(name, value))}   # {value.origin}")
    note(f"settings file: {config_file()}")


def keys(*, json: o.Json) -> None:
    """List every key: what it takes, its default, and what it does."""
    from localinfer.cli.output import line, show_json

    if json:
        show_json([_key_as_json(setting) for setting in SETTINGS.values()])
        return
    width = max(map(len, SETTINGS))
    for name, setting in sorted(SETTINGS.items()):
        line(f"{name:<{width}}  {_takes(setting):<14}  {setting.help}")


def _takes(setting: Setting) -> str:
    """What a key's value may be, in a word or two."""
    return "|".join(setting.choices) or {"flag": "true|false", "int": "number", "float": "number"}.get(
        setting.kind, "texts" if setting.kind == "list" else "text"
    )


def _key_as_json(setting: Setting) -> dict[str, Any]:
    said: dict[str, Any] = {"key": setting.name, "env": setting.env, "kind": setting.kind, "help": setting.help}
    return said | {
        "choices": list(setting.choices),
        "low": setting.low,
        "high": setting.high,
        "default": setting.default,
    }


def set_(key: Key, words: Words) -> None:
    """Remember a setting."""
    from localinfer.cli.output import note
    from localinfer.paths import config_file

    setting = SETTINGS.get(key)
    if setting is None:
        raise unknown_key(key, SETTINGS)
    if setting.kind != "list" and len(words) != 1:
        raise UsageError(f"`{key}` takes one value, {len(words)} were given", hint="quote a value that holds spaces")
    value = setting.parse(words if setting.kind == "list" else words[0], key)
    edit(config_file(), key, list(value) if setting.kind == "list" else value)
    note(f"{key} is set in {config_file()}")


def unset(key: Key) -> None:
    """Forget a setting; its default holds again. Also removes keys that are no settings."""
    from localinfer.cli.output import note
    from localinfer.paths import config_file

    edit(config_file(), key, None)
    note(f"{key} is no longer set in {config_file()}")


def shown(name: str, value: Value) -> Any:
    """A value for people's eyes: of a secret only that there is one."""
    return SECRET if SETTINGS[name].secret and value.value is not None else value.value


def changed(values: dict[str, Value]) -> dict[str, Value]:
    """Only what is not at its default."""
    return {name: value for name, value in values.items() if value.origin != "default"}


def toml_words(value: object) -> str:
    """`value` as TOML writes it: strings, numbers, true and false, and lists of strings look the same in JSON."""
    return json_words.dumps(value, ensure_ascii=False)


def edit(file: Path, key: str, value: object) -> None:
    """Set `key` in the TOML file, or remove it (None), leaving every other line as it is. All or nothing.

    Raises `UsageError` when the file is not TOML, or holds the key in a form of several lines.
    """
    import tomllib

    try:
        text = file.read_text(encoding="utf-8")
        before = tomllib.loads(text)
    except FileNotFoundError:
        text, before = "", {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}", hint="mend or remove that file") from None
    if value is None and key not in before:
        raise UsageError(f"`{key}` is not set in {file}", hint="`localinfer config show` lists what is set")
    wanted = {name: old for name, old in before.items() if name != key} | ({} if value is None else {key: value})
    pattern = re.compile(rf"^[ \t]*[\"']?{re.escape(key)}[\"']?[ \t]*=.*(?:\n|\Z)", re.MULTILINE)
    fresh = "" if value is None else f"{key} = {toml_words(value)}\n"
    # A new key goes to the top: after a [table] it would belong to that.
    text = pattern.sub(lambda _: fresh, text, count=1) if key in before else fresh + text
    try:
        done = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        done = {}
    if done != wanted:
        raise UsageError(f"`{key}` cannot be changed in {file} line by line", hint="edit that file by hand")
    _write(file, text)


def _write(file: Path, text: str) -> None:
    """Replace the file in one step, readable by its owner only: it may hold a token."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
