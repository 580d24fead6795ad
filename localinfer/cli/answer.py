"""Shows one answer: text as it comes, or one JSON object; then, if asked, how fast it was."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from localinfer.chats.chat import Chat
from localinfer.chats.forms import thinks
from localinfer.chats.saying import Saying
from localinfer.chats.thinking import Thinking
from localinfer.cli.bundles import CostFlags
from localinfer.cli.output import Answer, note, note_tinted, show_json
from localinfer.cli.progress import Progress as ProgressLine
from localinfer.cli.report import Reply, as_json, as_line
from localinfer.cli.tints import Tints
from localinfer.engine.form import FormLost
from localinfer.errors import ContextOverflow, NotFinite
from localinfer.events import Event, Finished, Progress, Shifted, Stats, Text
from localinfer.loading.opening import Opened

if TYPE_CHECKING:
    from localinfer.cost.apis import Offer
    from localinfer.cost.bill import Bill


def show_answer(
    opened: Opened,
    chat: Chat,
    prompt: str,
    *,
    json: bool,
    stats: bool,
    quiet: bool,
    cost: CostFlags,
    offer: "Offer | None" = None,
    tints: Tints | None = None,
    show_thinking: bool = False,
    tell_seed: bool = False,
) -> None:
    """Answer `prompt` on standard output, without what the model thinks first unless that is to be shown.

    Ctrl-C ends the answer where it is: what was written stays, JSON is still whole, then `KeyboardInterrupt` goes on.
    Raises, after the text, `ContextOverflow` if the context filled up, `NotFinite` if the model computed NaN, and
    `FormLost` if its form became too large.
    """
    reply, out, interrupted = Reply(None), Answer(tints), False
    if json or stats:
        from localinfer.cost.energy import start_meter, with_card

        reply.meter = with_card(start_meter(cost.watts), opened.engine.info.card)
    reply.apart = None if show_thinking else apart_of(chat, prompt)
    events = chat.reply(prompt, cancelled=lambda: interrupted)
    with opened.engine.driver.here():
        try:
            with ProgressLine(quiet=quiet) as progress:
                _follow(events, reply, out, progress, json=json)
        except (NotFinite, FormLost) as error:
            if isinstance(error, FormLost) and not reply.token_ids:
                raise
            reply.error = error
        except KeyboardInterrupt:
            interrupted = True
            _follow(events, reply, out, ProgressLine(quiet=True), json=json)  # the last words, if they were not heard
    for warning in chat.warnings if not quiet else ():
        note(f"warning: {warning}")
    if json:
        show_json(as_json(opened, chat, reply, bill(reply, cost, offer)))
    else:
        out.end_line()
    if tints is not None and not json:
        note_tinted(tints.legend())
    if stats and reply.stats is not None:
        note(as_line(opened, reply.stats, chat.sampling.seed, reply.thinking_tokens, reply.thinking_s))
        note(bill(reply, cost, offer).in_words())
    if tell_seed and not (json or stats):
        mention_seed(chat)
    if interrupted:
        raise KeyboardInterrupt
    mention_end(opened, chat, reply, quiet=quiet)


def mention_seed(chat: Chat) -> None:
    """Say by which seed the answer was drawn."""
    note(f"seed {chat.sampling.seed}: `--seed {chat.sampling.seed}` gives this again")


def bill(reply: Reply, cost: CostFlags, offer: "Offer | None") -> "Bill":
    """What the answer cost here, and would have cost elsewhere."""
    from localinfer.cost.bill import bill_of
    from localinfer.cost.energy import source_of

    stats = reply.stats
    return bill_of(
        reply.joules,
        source_of(reply.meter),
        seconds=stats.total_s if stats else None,
        read=stats.prompt_tokens if stats else 0,
        written=len(reply.token_ids),
        tariff=cost.tariff(),
        offer=offer,
    )


def apart_of(chat: Chat, prompt: str) -> Saying | None:
    """What tells thinking from the answer; None for a model that does not mark it."""
    begun = None if chat.raw else thinks(chat.engine, chat.tokens_of(prompt))
    return None if begun is None else Saying(Thinking(begun=begun))


def _follow(events: Iterator[Event], reply: Reply, out: Answer, progress: ProgressLine, *, json: bool) -> None:
    """Write text as it comes and keep what the end needs."""
    for event in events:
        match event:
            case Progress(done=done, total=total):
                progress("reading the prompt", done, total)
            case Text(_, text, token_ids, drafter, score):
                reply.scores += [score] if score else []
                said = reply.take(text, token_ids)
                if said.reasoning and not said.content:
                    progress("thinking", len(reply.token_ids), 0)
                else:
                    progress.clear()
                if said.content and not json:
                    out.write(said.content, drafter, len(token_ids))
            case Shifted(_, dropped, kept):
                progress.clear()
                note(f"the context is full: the oldest {dropped} tokens were forgotten, {kept} are kept")
            case Stats():
                reply.stats = event
                reply.read_meter()
            case Finished():
                reply.finish_reason, reply.stats, reply.stop = event.reason, event.stats, event.stop
                reply.token_ids = list(event.token_ids)
                reply.read_meter()
                if (rest := reply.rest().content) and not json:
                    out.write(rest)


def mention_end(opened: Opened, chat: Chat, reply: Reply, *, quiet: bool) -> None:
    """Say when the answer is not whole; a full context is an error, and so is NaN."""
    if reply.error is not None:
        raise reply.error
    if reply.finish_reason == "overflow":
        raise ContextOverflow(
            f"the context of {opened.engine.context_size} tokens is full after {len(reply.token_ids)} new tokens",
            hint="raise `--ctx-size`, or add `--on-overflow shift` to forget the oldest text",
        )
    if reply.is_all_thinking and not quiet:
        note("the answer ended inside its thinking, which `--show-thinking` shows and `--no-think` leaves out")
    if reply.finish_reason == "length" and not quiet:
        note(f"stopped after {chat.sampling.max_tokens} tokens, as asked; `--max-tokens` sets it")
