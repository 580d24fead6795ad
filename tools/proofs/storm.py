"""Many clients at once, of which some leave in the middle: nothing is left behind.

    python -m tools.proofs.storm starter --clients 64 --seconds 60

The server is a process of its own. Before and after, when it is idle, its threads, file descriptors and memory are
counted; told are requests, tokens, refusals, and the time between two pieces of a stream. Exit code 1 where something
is left: a thread, a descriptor, or more than 32 MB.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from localinfer import paths
from tests.serve.conftest import Server, serving, until

SLACK_MB = 32
"""What an allocator may keep of what was given back."""

PROTOCOLS = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/api/chat")


@dataclass
class Told:
    """What the clients have seen."""

    ended: Counter[str] = field(default_factory=Counter)
    gaps: list[float] = field(default_factory=list)


def body_of(path: str, model: str, chance: random.Random) -> dict[str, Any]:
    """A request of this protocol for a few dozen tokens."""
    tokens, text = chance.randint(8, 64), f"Write of the number {chance.randint(0, 99)}. " * chance.randint(1, 12)
    body: dict[str, Any] = {"model": model, "stream": True}
    if path == "/v1/completions":
        return body | {"prompt": text, "max_tokens": tokens}
    if path == "/v1/responses":
        return body | {"input": text, "max_output_tokens": tokens}
    body["messages"] = [{"role": "user", "content": text}]
    if path == "/api/chat":
        return body | {"options": {"num_predict": tokens}}
    form = {"type": "json_schema", "json_schema": {"schema": {"type": "array", "items": {"type": "integer"}}}}
    formed = {"response_format": form} if path == "/v1/chat/completions" and chance.random() < 0.3 else {}
    return body | {"max_tokens": tokens} | formed


async def client(url: str, model: str, seed: int, end: float, told: Told) -> None:
    """Ask one thing after the other; leave in the middle of a third of them, and of the last."""
    chance = random.Random(seed)
    async with httpx2.AsyncClient(timeout=300) as session:
        while time.monotonic() < end:
            path = chance.choice(PROTOCOLS)
            leaves = chance.randint(0, 12) if chance.random() < 0.34 else None
            async with session.stream("POST", url + path, json=body_of(path, model, chance)) as response:
                if response.status_code != 200:
                    told.ended[f"status {response.status_code}"] += 1
                    await asyncio.sleep(min(1.0, float(response.headers.get("retry-after", "1"))))
                    continue
                last, count = 0.0, 0
                async for line in response.aiter_lines():
                    if not line or line.startswith("event:"):
                        continue
                    now, count = time.monotonic(), count + 1
                    if last and count > 3:
                        told.gaps.append(now - last)
                    last = now
                    if (leaves is not None and count > leaves) or now > end:
                        told.ended["left"] += 1
                        break
                else:
                    told.ended["whole"] += 1


def held(server: Server) -> dict[str, int]:
    """What the process has open."""
    process = Path("/proc") / str(server.process.pid)
    status = dict(line.split(":", 1) for line in (process / "status").read_text(encoding="ascii").splitlines())
    descriptors = len(list((process / "fd").iterdir()))
    return {"threads": int(status["Threads"]), "descriptors": descriptors, "MB": int(status["VmRSS"].split()[0]) >> 10}


async def storm(url: str, model: str, clients: int, seconds: float) -> Told:
    told, end = Told(), time.monotonic() + seconds
    await asyncio.gather(*(client(url, model, seed, end, told) for seed in range(clients)))
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="starter")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        # A small cache is full after the first seconds: what the process takes more after that is no cache.
        flags = ("--offline", "-np", "16", "--queue", "64", "--draft", "off", "-c", "2048", "--kv-tokens", "8192")
        where = {"LOCALINFER_HOME": str(paths.home())}
        with serving(Path(home), asked.model, *flags, **where) as server:
            asyncio.run(storm(server.url, asked.model, asked.clients, 10))  # what is made once is there then
            until(server.is_idle)
            before = held(server)
            told = asyncio.run(storm(server.url, asked.model, asked.clients, asked.seconds))
            until(server.is_idle)
            until(lambda: held(server)["descriptors"] <= before["descriptors"])
            after, written = held(server), server.metric("generation_tokens_total")
            code = server.end()
    gaps = sorted(told.gaps)
    p50, p99 = (1e3 * gaps[int(share * (len(gaps) - 1))] for share in (0.5, 0.99))
    print(f"{asked.clients} clients, {asked.seconds:.0f} s: {json.dumps(dict(told.ended))}, {written:.0f} tokens")
    print(f"between two pieces of a stream: median {p50:.1f} ms, p99 {p99:.1f} ms, of {len(gaps)}")
    print(f"before {before}, after {after}, exit code {code}")
    grown = after["MB"] - before["MB"] > SLACK_MB
    return int(after["threads"] > before["threads"] or grown or code != 0)


if __name__ == "__main__":
    raise SystemExit(main())
