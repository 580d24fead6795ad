"""`cache`: look after what is stored."""

from localinfer.cli import options as o
from localinfer.errors import Corrupt, size


def verify(*, json: o.Json, quiet: o.Quiet) -> None:
    """Hash every file of every model again. Exit code 7 when one is not what it should be."""
    from localinfer.cli.output import line, show_json
    from localinfer.cli.progress import Progress
    from localinfer.hub.upkeep import verify as check

    hashed = 0
    with Progress(long=True, quiet=quiet, in_bytes=True) as progress:

        def on_progress(done: int, total: int) -> None:
            nonlocal hashed
            hashed = done
            progress("hashing", done, total)

        damages = check(on_progress)
    if json:
        bad = [{"ref": damage.model.ref, "path": str(damage.path), "what": damage.what} for damage in damages]
        show_json({"checked_bytes": hashed, "bad": bad})
    elif not damages and not quiet:
        line(f"{size(hashed)} hashed, all as it should be")
    if damages:
        first = damages[0]
        raise Corrupt(
            f"{len(damages)} bad file{'s' * (len(damages) != 1)}, the first: {first.path}: {first.what}",
            hint=f"delete it and get it again: `localinfer rm {first.model.ref}`",
        )


def prune(*, dry_run: o.DryRun, json: o.Json, quiet: o.Quiet) -> None:
    """Delete unfinished downloads, half-made models, files that no model needs, packed experts, and cached keys and
    values."""
    from localinfer.cli.output import line, note, show_json
    from localinfer.hub.unfinished import unfinished_models
    from localinfer.hub.upkeep import prune as tidy

    found = tidy(dry_run=dry_run)
    freed = sum(leftover.size_bytes for leftover in found)
    if json:
        items = [{"path": str(item.path), "what": item.what, "size_bytes": item.size_bytes} for item in found]
        show_json({"deleted": not dry_run, "freed_bytes": freed, "leftovers": items})
    elif not quiet:
        for leftover in found:
            line(f"{leftover.path}  {size(leftover.size_bytes)}  {leftover.what}")
        line(f"{'would free' if dry_run else 'freed'} {size(freed)}")
        for one in unfinished_models():
            if not any(leftover.path in one.paths for leftover in found):
                state = "is being made" if one.busy else "was stopped within a day, and can be gone on with"
                note(f"kept {size(one.size_bytes)} of `{one.ref}`, which {state}; `localinfer rm {one.ref}` deletes it")
