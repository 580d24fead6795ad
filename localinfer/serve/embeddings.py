"""`/v1/embeddings`: texts as vectors, in turns with texts that are written."""

import asyncio
from typing import Any

from localinfer.protocols.fields import Fields
from localinfer.protocols.vectors import understand
from localinfer.serve.service import Service


async def embeddings(service: Service, fields: Fields) -> dict[str, Any]:
    """The vectors of the texts in `fields`."""
    wanted = understand(fields)
    fields.done()
    async with service.models.use(wanted.model) as held:
        requests = await asyncio.to_thread(wanted.requests, held.engine)
        read = sum(len(request.prompt) for request in requests)
        answer = wanted.whole(held.served.name, read, await service.vectors(held, requests))
        service.note(f"/v1/embeddings {held.served.name}: {len(requests)} texts, {read} tokens")
        return answer
