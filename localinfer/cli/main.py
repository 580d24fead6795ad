"""The entry point: the one place where errors become words and exit codes.

Only the standard library is imported at the top, so that Ctrl-C during start-up is already ours to handle.
"""

import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

INTERRUPTED = 130
CLOSED_PIPE = 141
"""What a shell reports for a program that ended because its reader went away."""

OS_CODES = {
    errno.ENOSPC: 3,
    errno.EDQUOT: 3,
    errno.ENOMEM: 3,
    errno.EMFILE: 3,
    errno.ENFILE: 3,
    errno.ENOENT: 4,
    errno.EACCES: 4,
    errno.EPERM: 4,
    errno.EROFS: 4,
}
"""Exit codes for what the system refuses; anything else it refuses counts as unexpected."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run one command line and leave through `SystemExit`. `argv` without the program's name."""
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:  # everything, once: nothing may leave as a traceback
        code = INTERRUPTED if _was_interrupted(error) else _explain(error)
    raise SystemExit(code)


def _was_interrupted(error: BaseException | None) -> bool:
    """Python wraps what comes out of a class's making, an interrupt too."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__cause__
    return False


def _run(argv: list[str]) -> int:
    from localinfer.cli import output

    output.prepare()
    try:
        if argv and argv[0] == "__complete":
            from localinfer.cli.names import show_names

            return show_names(argv[1:])
        from localinfer.cli.app import call

        code = call(argv)
        output.flush()
    except output.ReaderGone:
        return CLOSED_PIPE
    except SystemExit as stop:  # Typer leaves this way when its own page met a closed pipe
        if not isinstance(stop.__context__, BrokenPipeError):
            raise
        output.discard()
        return CLOSED_PIPE
    except BaseException:
        output.flush(quietly=True)
        raise
    return code


def _explain(error: Exception) -> int:
    """Say on stderr what happened and what to do; return the exit code."""
    from localinfer.cli import output
    from localinfer.errors import LocalInferError

    if os.environ.get("LOCALINFER_DEBUG", "") not in ("", "0"):
        import traceback

        output.note("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, LocalInferError):
        output.show_error(error.message, error.hint)
        return error.exit_code
    if isinstance(error, MemoryError):
        output.show_error("the system has no memory left", "close a program, or use a smaller model or `--ctx-size`")
        return 3
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package not in ("", "localinfer"):  # left out where it has no wheel
        from localinfer.extras import package_command

        output.show_error(f"the package `{package}` is not installed", f"run `{package_command(package)}`")
        return 5
    if isinstance(error, OSError) and error.errno in OS_CODES:
        output.show_error(_system_words(error), "mend that, then run the same command again")
        return OS_CODES[error.errno]
    output.show_error(
        f"internal error: {type(error).__name__}: {error}",
        "this is a bug: run it again with LOCALINFER_DEBUG=1 and report what is printed",
    )
    return 1


def _system_words(error: OSError) -> str:
    what = (error.strerror or "the system refused").lower()
    return f"{error.filename}: {what}" if error.filename else what
