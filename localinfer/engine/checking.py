"""Whether a request can be answered at all, before anything is computed."""

from localinfer.engine.request import Request, not_a_request
from localinfer.errors import ContextOverflow, NotSupported, UsageError


def check(request: Request, *, vocab: int, context: int, longest: int, vectors: bool) -> None:
    """Raise `UsageError` or `ContextOverflow` for a request that cannot be answered with so many tokens known and so
    much `context`; `longest` is what the model was made for, `vectors` whether texts can be made into such."""
    if not isinstance(request, Request):
        raise not_a_request(request)
    n = len(request.prompt) + len(request.forced)
    if request.pool and not vectors:
        raise NotSupported("llama.cpp makes no vectors of texts here", hint="leave out `--backend llamacpp`")
    if not request.prompt:
        raise UsageError("the prompt is empty", hint="give it some text")
    given = (*request.prompt, *request.forced)
    if not 0 <= min(given) <= max(given) < vocab:
        bad = min(given) if min(given) < 0 else max(given)
        raise UsageError(f"the prompt has token {bad}, but the model knows 0 to {vocab - 1}")
    if (biased := max((token for token, _ in request.sampling.logit_bias), default=0)) >= vocab:
        raise UsageError(f"logit-bias names token {biased}, but the model knows 0 to {vocab - 1}")
    keep = min(request.keep, len(request.prompt))
    if keep < 0:
        raise UsageError(f"{keep} tokens cannot be kept", hint="keep 0 or more")
    if n - bool(request.forced or request.pool) >= context and request.on_overflow == "error":
        raise ContextOverflow(
            f"the prompt has {n} tokens, but the context holds {context} with the answer",
            hint=_more_room(n, longest),
        )
    if request.constraint is not None:
        free = context - n if request.on_overflow == "error" else context - keep
        request.constraint.require_room(free, request.sampling.max_tokens, request.begun)
    if context - keep < 4 and request.on_overflow == "shift":
        raise ContextOverflow(
            f"{keep} tokens of the prompt must be kept, but the context holds {context}",
            hint="raise the context (-c) or shorten the system prompt",
        )


def _more_room(prompt: int, longest: int) -> str:
    """A context that holds the prompt and an answer, if the model was made for one."""
    forget = "forget the oldest part (--on-overflow shift)"
    if prompt >= longest:
        return f"{forget}, or shorten the prompt; the model was made for {longest} tokens"
    return f"raise the context (-c {min(prompt + 512, longest)}) or {forget}"
