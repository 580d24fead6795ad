"""How a command's words become values: Typer splits the line, `config.load_config` merges and checks.

The types of contexts, parameters and formatters are Typer's private ones, hence `Any`.
"""

from typing import Any

from typer import TyperException
from typer.core import TyperCommand

from localinfer.cli.examples import EXAMPLES
from localinfer.cli.options import SETTINGS
from localinfer.config import Setting, load_config, unknown_variables
from localinfer.errors import UsageError

TYPED = "localinfer.typed"
"""Key of `Context.meta`: the settings that stood on the command line, as against the environment or the file."""


class Command(TyperCommand):
    """A command whose flags may also come from the environment and the settings file.

    Typer's own conversion of values is passed by: it would load a validation library, which costs more than all the
    rest of the start. Every flag is in `SETTINGS` and is checked there; arguments are text.
    """

    use_sources = True
    """Whether the settings file and the environment are read too. `config` must work when they are broken."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Fill `ctx.params` with merged, checked values by parameter name."""
        try:
            typed, rest, _ = self.make_parser(ctx).parse_args(args=list(args))
        except TyperException as error:
            raise _in_our_words(error, ctx.command_path) from None
        wanted: dict[str, Setting] = {}
        *params, help_flag = self.get_params(ctx)
        if typed.get("help"):
            help_flag.handle_parse_result(ctx, typed, rest)  # prints the page and leaves
        for param in params:
            if param.param_type_name == "argument":
                ctx.params[param.name] = _argument(param, typed.get(param.name), ctx.command_path)
            else:
                wanted[param.name] = SETTINGS[setting_of(param)]
        if rest:
            raise UsageError(f"`{rest[0]}` is one word too many", hint=f"quote text; see `{ctx.command_path} --help`")
        flags = {wanted[name].name: raw for name, raw in typed.items() if name in wanted and raw is not None}
        ctx.meta[TYPED] = frozenset(flags)
        values = self._load(flags)
        if self.use_sources and not values["quiet"].value:
            name_unknown_variables()
        ctx.params.update({name: values[setting.name].value for name, setting in wanted.items()})
        ctx.args = []
        return []

    def _load(self, flags: dict[str, object]) -> Any:
        if not self.use_sources:
            return load_config(SETTINGS, flags, file=None, env={})
        from localinfer.paths import config_file

        return load_config(SETTINGS, flags, file=config_file())

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Words after the command in the usage line, as the documentation writes them."""
        arguments = [param for param in self.get_params(ctx) if param.param_type_name == "argument"]
        return ["[OPTIONS]", *(str(param.metavar) for param in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments and flags, each with its one description."""
        params: list[Any] = list(self.get_params(ctx))
        arguments = [(str(p.metavar), str(p.help)) for p in params if p.param_type_name == "argument"]
        records = [p.get_help_record(ctx) for p in params if p.param_type_name == "option"]
        for title, rows in (("Arguments", arguments), ("Options", [record for record in records if record])):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
        with formatter.section("Examples"):
            for line in EXAMPLES[ctx.command_path.removeprefix("localinfer ")]:
                formatter.write(f"  {line}\n")


class PlainCommand(Command):
    """A command that reads its flags only."""

    use_sources = False


def first_line(command: Any) -> str:
    """What a command does, in one line."""
    return str(command.help or "").partition("\n\n")[0].replace("\n", " ")


def refuse_typed(ctx: Any, *flags: str) -> None:
    """Raise `UsageError` for the first of `flags` that stood on the command line, where it would change nothing."""
    for flag in flags:
        if flag in ctx.meta[TYPED]:
            command = ctx.command_path.removeprefix("localinfer ")
            raise UsageError(f"`--{flag}` changes nothing that `{command}` tells", hint="leave it out")


def setting_of(param: Any) -> str:
    """The setting that an option stands for: its long flag without dashes."""
    return str(max(param.opts, key=len)).removeprefix("--")


def _in_our_words(error: TyperException, command: str) -> UsageError:
    """Typer's usage errors: lower case, no full stop, the nearest flag as the hint."""
    words = error.message.strip().rstrip(".")
    near = getattr(error, "possibilities", None)
    hint = f"did you mean `{near[0]}`?" if near else f"see `{command} --help`"
    return UsageError(words[:1].lower() + words[1:], hint=hint)


def name_unknown_variables() -> None:
    """A variable that looks like ours but means nothing is most likely a typing error: say so."""
    from localinfer.cli.output import note

    for name, near in unknown_variables(SETTINGS).items():
        note(f"warning: {name} is set, but no setting has this name" + (f"; did you mean {near}?" if near else ""))


def _argument(param: Any, value: Any, command: str) -> Any:
    if param.nargs == -1:
        value = list(value or ())
    if param.required and not value:
        raise UsageError(f"{param.metavar} is missing", hint=f"see `{command} --help`")
    return value
