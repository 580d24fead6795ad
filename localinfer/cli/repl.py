"""`run MODEL` on a terminal, without a prompt: a prompt a line, an answer below it, until Ctrl-D.

One conversation, which nobody keeps: `chat` is the app that does. Ctrl-C ends an answer, and never the program.
"""

import contextlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

from localinfer.chats.chat import Chat
from localinfer.chats.thinking_switch import thinking_variables
from localinfer.cli.options import SETTINGS
from localinfer.cli.output import line, note, show_error
from localinfer.config import bias_of
from localinfer.errors import LocalInferError, UsageError

ASKS, GOES_ON = ">>> ", "... "
QUOTES = '"""'

HELP = """\
  /bye                leave; so does Ctrl-D on an empty line
  /clear              forget the conversation
  /think on|off|auto  let the model think first, or not, or as its template has it
  /set                show what can be set, and its value
  /set NAME VALUE     change it, such as `/set temp 0.2` or `/set system Be brief.`
  /?                  this list
  \"""                 begin a prompt of several lines, and end it
  //text              send a prompt that begins with a slash
Ctrl-C ends an answer. Nothing of this is kept; `localinfer chat` keeps chats, and shows several side by side."""

NAMES: Mapping[str, str] = {
    "temp": "temperature",
    "top-k": "top_k",
    "top-p": "top_p",
    "min-p": "min_p",
    "repeat-penalty": "repeat_penalty",
    "presence-penalty": "presence_penalty",
    "frequency-penalty": "frequency_penalty",
    "dry-multiplier": "dry_multiplier",
    "dry-base": "dry_base",
    "dry-allowed-length": "dry_allowed_length",
    "top-n-sigma": "top_n_sigma",
    "typical-p": "typical_p",
    "xtc-probability": "xtc_probability",
    "xtc-threshold": "xtc_threshold",
    "logit-bias": "logit_bias",
    "seed": "seed",
    "max-tokens": "max_tokens",
    "stop": "stop",
}
"""What `/set` knows beside `system`: a flag's name, and the field of `SamplingParams`."""

COMMANDS = ("/bye", "/exit", "/quit", "/clear", "/think", "/set", "/?", "/help")


@dataclass(slots=True)
class Loop:
    """The conversation as it stands. `answer` writes the answer to a prompt; `read` gives a line of the person's."""

    chat: Chat
    answer: Callable[[Chat, str], None]
    read: Callable[[str], str] = input
    ended: bool = field(default=False, init=False)

    def run(self) -> None:
        """Until `/bye` or the end of the input."""
        _use_readline()
        note("/? lists the commands; Ctrl-D ends")
        while not self.ended:
            try:
                said = self._prompt()
            except EOFError:
                line()
                return
            except KeyboardInterrupt:
                line()
                note("Ctrl-D or /bye ends")
                continue
            except UnicodeDecodeError as error:
                show_error(f"that was not UTF-8: byte 0x{error.object[error.start]:02x}", None)
                continue
            if said.strip():
                self._take(said)

    def _prompt(self) -> str:
        """What the person wrote: a line, or several between triple quotes."""
        said = self.read(ASKS)
        if not said.lstrip().startswith(QUOTES):
            return said
        rest = said.lstrip().removeprefix(QUOTES)
        lines = [rest]
        while not lines[-1].rstrip().endswith(QUOTES):
            lines.append(self.read(GOES_ON))
        lines[-1] = lines[-1].rstrip().removesuffix(QUOTES)
        return "//" * ("\n".join(lines).startswith("/")) + "\n".join(lines).removeprefix("/")

    def _take(self, said: str) -> None:
        """Do a command, or answer a prompt; no error ends the loop."""
        try:
            if said.startswith("/") and not said.startswith("//"):
                self._command(*said.split(maxsplit=1))
            else:
                self.answer(self.chat, said.replace("//", "/", 1) if said.startswith("//") else said)
        except KeyboardInterrupt:
            pass  # the answer has ended where it was; it stays in the conversation
        except LocalInferError as error:
            show_error(error.message, error.hint)

    def _command(self, name: str, rest: str = "") -> None:
        if name in ("/bye", "/exit", "/quit"):
            self.ended = True
        elif name == "/clear":
            self._renew(messages=())
            note("the conversation is forgotten")
        elif name == "/think":
            self._think(rest.strip())
        elif name == "/set":
            self._set(rest)
        elif name in ("/?", "/help"):
            line(HELP)
        else:
            near = get_close_matches(name, COMMANDS, n=1, cutoff=0.5)
            raise UsageError(
                f"there is no command `{name}`", hint=f"did you mean `{near[0]}`?" if near else "`/?` lists them"
            )

    def _think(self, word: str) -> None:
        """Turn the switch of the model's chat template."""
        if word not in (choices := {"on": True, "off": False, "auto": None}):
            raise UsageError("`/think` takes on, off or auto", hint="write it like `/think off`")
        if self.chat.raw:
            raise UsageError("`/think` goes through the chat template, which `--raw` leaves out")
        self._renew(variables=thinking_variables(self.chat.engine.chat_template, choices[word]))

    def _set(self, words: str) -> None:
        """`NAME VALUE`; without a name all are shown."""
        name, _, value = words.partition(" ")
        if not name:
            self._show()
        elif name == "system":
            self._renew(system=value.strip())
        elif name in NAMES:
            if not value.strip():
                raise UsageError(f"`/set {name}` needs a value", hint=f"{name}: {SETTINGS[name].help}")
            parsed = SETTINGS[name].parse(value.strip(), name)
            if name == "logit-bias":
                parsed = tuple(map(bias_of, value.split()))
            self.chat.sampling = replace(self.chat.sampling, **{NAMES[name]: parsed})
        else:
            near = get_close_matches(name, [*NAMES, "system"], n=1, cutoff=0.5)
            raise UsageError(
                f"there is nothing called `{name}` to set", hint=f"did you mean `{near[0]}`?" if near else "see `/set`"
            )

    def _show(self) -> None:
        system = next((one.content for one in self.chat.messages if one.role == "system"), None)
        line(f"  {'system':<19}{'' if system is None else system}")
        for name, where in NAMES.items():
            value = getattr(self.chat.sampling, where)
            line(f"  {name:<19}{'' if value in (None, ()) else value if not isinstance(value, tuple) else list(value)}")

    def _renew(self, **changes: Any) -> None:
        """The chat again, with another system prompt or other messages."""
        old = self.chat
        system = next((one.content for one in old.messages if one.role == "system"), None)
        turns = tuple(one for one in old.messages if one.role != "system")
        said: dict[str, Any] = {"system": system, "messages": turns, "variables": old.variables} | changes
        self.chat = Chat(
            old.engine,
            system=said["system"] or None,
            messages=said["messages"],
            sampling=old.sampling,
            raw=old.raw,
            special=old.special,
            on_overflow=old.on_overflow,
            variables=said["variables"],
            grammar=old.grammar,
        )


def is_wanted(*given: object) -> bool:
    """Whether a person sits before both ends, and nothing was `given` to answer."""
    from localinfer.cli.output import is_terminal

    return not any(given) and is_terminal(sys.stdin) and is_terminal(sys.stdout)


def _use_readline() -> None:
    """Let arrows edit the line and bring earlier ones back, where the library is there. Nothing is kept on disk."""
    with contextlib.suppress(ImportError):
        import readline

        readline.set_auto_history(True)
