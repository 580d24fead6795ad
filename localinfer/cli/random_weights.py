"""Random weights of a real shape, to measure speed with."""

from localinfer.errors import UsageError, size
from localinfer.hub.model import LocalModel


def random_weights(
    word: str, model: str | None, group: str | None, head_bits: str | None, *, quiet: bool
) -> LocalModel:
    """The model of random weights that `word` means, made now if it is not here."""
    if model is not None:
        raise UsageError(f"both `--random` and the model `{model}`", hint="leave one of them out")
    from localinfer.bench.random_model import find_random, make_random, parse_form, planned_bytes
    from localinfer.cli.output import note
    from localinfer.cli.progress import Progress

    form = parse_form(word, int(group) if group else None, int(head_bits) if head_bits else None)
    if found := find_random(form):
        return found
    if not quiet:
        note(
            f"making random weights, {size(planned_bytes(form))}, kept as `{form.ref}`; "
            f"delete them with `localinfer rm {form.ref}`"
        )
    with Progress(quiet=quiet, in_bytes=True) as progress:
        return make_random(form, lambda done, total: progress("random weights", done, total))
