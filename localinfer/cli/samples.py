"""Shows several answers to one prompt: texts with an empty line between them, or a line of JSON each."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from localinfer.chats.samples import best, mean_logprob, together
from localinfer.cli.answer import apart_of, bill, mention_end, mention_seed, show_answer
from localinfer.cli.output import Answer, note, show_json, write
from localinfer.cli.progress import Progress
from localinfer.cli.report import Reply, as_json, as_line
from localinfer.cli.tints import tints_of
from localinfer.events import Event, Finished, Stats, Text

if TYPE_CHECKING:
    from localinfer.chats.chat import Chat
    from localinfer.cli.bundles import CostFlags
    from localinfer.cost.apis import Offer
    from localinfer.loading.opening import Opened


def answering(
    opened: "Opened", counts: tuple[int, int], *, drafts: bool, **shown: Any
) -> "Callable[[Chat, str], None]":
    """What answers a prompt and shows that: one answer as it is written, or several; `drafts` colours it."""

    def answer(chat: "Chat", text: str) -> None:
        if counts[1] > 1:
            return show_samples(opened, chat, text, *counts, **shown)
        return show_answer(opened, chat, text, tints=tints_of(sys.stdout) if drafts else None, **shown)

    return answer


def show_samples(
    opened: "Opened",
    chat: "Chat",
    prompt: str,
    shown: int,
    written: int,
    *,
    json: bool,
    stats: bool,
    quiet: bool,
    cost: "CostFlags",
    offer: "Offer | None" = None,
    show_thinking: bool = False,
    tell_seed: bool = False,
) -> None:
    """Write `written` answers to `prompt` together, and show `shown` of them: the likeliest first, if not all.

    Ctrl-C ends them where they are: what was written is shown, then `KeyboardInterrupt` goes on.
    """
    logprobs = chat.logprobs
    if written > shown and logprobs is None:
        chat.logprobs = 0
    replies = [Reply(None) for _ in range(written)]
    for reply in replies:
        reply.apart = None if show_thinking else apart_of(chat, prompt)
    interrupted = False
    try:
        _write(opened, chat, prompt, replies, quiet=quiet)
    except KeyboardInterrupt:
        interrupted = True
    for warning in chat.warnings if not quiet else ():
        note(f"warning: {warning}")
    means = [mean_logprob(reply.scores) for reply in replies]
    numbers = best(means, shown) if written > shown else list(range(shown))
    chosen = [(number, replies[number]) for number in numbers]
    if json:
        for number, reply in chosen:
            sampling = replace(chat.sampling, seed=(chat.sampling.seed + number) % (1 << 64))
            row = as_json(opened, chat, reply, bill(reply, cost, offer), sampling=sampling)
            mean = {"mean_logprob": means[number]} if reply.scores else {}
            show_json(row | ({"logprobs": None} if logprobs is None else {}) | {"sample": number} | mean)
    else:
        _show_texts([reply for _, reply in chosen])
    if stats:
        for number, reply in chosen:
            if reply.stats is not None:
                seed = (chat.sampling.seed + number) % (1 << 64)
                note(as_line(opened, reply.stats, seed, reply.thinking_tokens, reply.thinking_s))
    if tell_seed and not (json or stats):
        mention_seed(chat)
    if interrupted:
        raise KeyboardInterrupt
    for _, reply in chosen:
        mention_end(opened, chat, reply, quiet=quiet)


def _write(opened: "Opened", chat: "Chat", prompt: str, replies: Sequence[Reply], *, quiet: bool) -> None:
    requests, ended = chat.requests(prompt, len(replies)), 0
    with Progress(quiet=quiet) as progress:
        for number, event in together(opened.engine, requests):
            _keep(replies[number], event)
            ended += isinstance(event, Finished)
            progress("answers", ended, len(replies))


def _keep(reply: Reply, event: Event) -> None:
    match event:
        case Text(_, text, token_ids, _, score):
            reply.scores += [score] if score else []
            reply.take(text, token_ids)
        case Stats():
            reply.stats = event
        case Finished():
            reply.finish_reason, reply.stats, reply.stop = event.reason, event.stats, event.stop
            reply.token_ids, reply.error = list(event.token_ids), event.error
            reply.rest()


def _show_texts(replies: Sequence[Reply]) -> None:
    for number, reply in enumerate(replies):
        if number:
            write("\n")
        out: Any = Answer()
        out.write("".join(reply.text))
        out.end_line()
