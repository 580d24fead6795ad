"""`/tokenize` and `/detokenize`, as vLLM has them, and `/v1/messages/count_tokens`, which is Anthropic's."""

import asyncio
from typing import Any

from localinfer.chats.chat import Chat
from localinfer.chats.names import require_names_read
from localinfer.errors import ContextOverflow
from localinfer.protocols.anthropic import ask_of
from localinfer.protocols.asking import tasks_of, template_variables
from localinfer.protocols.common import conversation_of
from localinfer.protocols.fields import Fields, blamed
from localinfer.protocols.openai_chat import thinking_of
from localinfer.protocols.tools import tools_of
from localinfer.serve.service import Service

MOST_IDS = 1 << 20


async def tokenize(service: Service, fields: Fields) -> dict[str, Any]:
    """The tokens of `prompt`, or of `messages` as the model would read them."""
    model, prompt = fields.needed_text("model"), fields.text("prompt")
    listed, add_bos = fields.objects("messages"), fields.flag("add_special_tokens", True)
    tools, thinking = tools_of(fields.objects("tools")), thinking_of(fields)
    spelled = fields.flag("return_token_strs")
    fields.done()
    if (prompt is None) == (not listed):
        raise fields.wrong("prompt", "or `messages` is needed, and not both")
    async with service.models.use(model) as held:
        engine = held.engine

        def ids() -> list[int]:
            if prompt is not None:
                if len(prompt) > 256 * MOST_IDS:
                    raise ContextOverflow(f"the prompt has {len(prompt)} characters, which is too much")
                return Chat(engine, raw=True).tokens_of(prompt) if add_bos else engine.tokenizer.encode_text(prompt)
            system, turns = conversation_of(listed)
            template = (engine.tools_template if tools else None) or engine.chat_template or ""
            variables = template_variables(
                template, thinking["variables"], thinking.get("think"), "reasoning_effort", "reasoning_effort"
            )
            chat = Chat(engine, system=system, variables=variables)
            tokens = chat.tokens_of_turns(turns, tools)
            with blamed("messages"):
                require_names_read(chat, turns, tools, tokens)
            return tokens

        found = await asyncio.to_thread(ids)
        answer: dict[str, Any] = {"count": len(found), "max_model_len": engine.context_size, "tokens": found}
        if spelled:
            answer["token_strs"] = [engine.tokenizer.decode([one], specials=True) for one in found]
        return answer


async def detokenize(service: Service, fields: Fields) -> dict[str, Any]:
    """The text of `tokens`, special ones spelled."""
    model, tokens = fields.needed_text("model"), fields.take("tokens")
    fields.done()
    if not isinstance(tokens, list) or not all(type(one) is int for one in tokens) or len(tokens) > MOST_IDS:
        raise fields.wrong("tokens", "must be a list of tokens")
    async with service.models.use(model) as held:
        size = held.engine.tokenizer.vocab_size
        if any(not 0 <= one < size for one in tokens):
            raise fields.wrong("tokens", f"has a token that is not of 0 to {size - 1}")
        return {"prompt": await asyncio.to_thread(held.engine.tokenizer.decode, tokens, specials=True)}


async def count_tokens(service: Service, fields: Fields) -> dict[str, Any]:
    """The tokens that the model would read."""
    ask = ask_of(fields, None)
    fields.done()
    async with service.models.use(ask.model) as held:
        (task,) = await asyncio.to_thread(tasks_of, ask, held.engine)
    return {"input_tokens": len(task.request.prompt)}
