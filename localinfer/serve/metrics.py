"""What a server counts, as Prometheus reads it; names are vLLM's, so that dashboards for it fit."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from localinfer.protocols.answer import Answer
from localinfer.serve.models import Held

_MODEL = ["model_name"]
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300)
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000, 200_000)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


class Metrics:
    """Counts all that has been answered."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"vllm:{name}", text, [*_MODEL, *labels], registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"vllm:{name}", text, _MODEL, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"vllm:{name}", text, _MODEL, registry=registry, buckets=buckets)

        self._ended = counter("request_success", "Texts that have ended, by how.", "finished_reason")
        self._prompt = counter("prompt_tokens", "Tokens of prompts.")
        self._written = counter("generation_tokens", "Tokens written.")
        self._asked = counter("prefix_cache_queries", "Tokens of prompts that were looked for in the cache.")
        self._cached = counter("prefix_cache_hits", "Tokens of prompts that were found in the cache.")
        self._drafted = counter("spec_decode_num_draft_tokens", "Tokens guessed ahead.")
        self._accepted = counter("spec_decode_num_accepted_tokens", "Tokens guessed ahead that were right.")
        self._first = histogram("time_to_first_token_seconds", "From the request to the first token.")
        each = "Between two tokens, on average of a text."
        self._each = histogram("inter_token_latency_seconds", each, _TOKEN_SECONDS)
        self._whole = histogram("e2e_request_latency_seconds", "From the request to the end of a text.")
        self._queued = histogram("request_queue_time_seconds", "Before the first row of a text.")
        self._prefill = histogram("request_prefill_time_seconds", "From the first row to the first token.")
        self._decode = histogram("request_decode_time_seconds", "From the first token to the end of a text.")
        self._prompts = histogram("request_prompt_tokens", "Tokens of a prompt.", _TOKENS)
        self._answers = histogram("request_generation_tokens", "Tokens written for a request.", _TOKENS)
        self._running = gauge("num_requests_running", "Texts in the batch.")
        self._waiting = gauge("num_requests_waiting", "Texts that wait.")
        self._usage = gauge("kv_cache_usage_perc", "Share of the KV cache's blocks in use, from 0 to 1.")
        self._preempted = counter("num_preemptions", "Texts that made room for others.")
        self._last_preempted = dict[str, int]()

    def count(self, model: str, answer: Answer) -> None:
        """A text has ended, or was given up."""
        stats = answer.stats
        self._ended.labels(model, answer.reason or "abort").inc()
        if stats is None:
            return
        self._prompt.labels(model).inc(stats.prompt_tokens)
        self._written.labels(model).inc(stats.completion_tokens)
        self._asked.labels(model).inc(stats.prompt_tokens)
        self._cached.labels(model).inc(stats.cached_tokens)
        self._drafted.labels(model).inc(stats.drafted)
        self._accepted.labels(model).inc(stats.accepted)
        self._whole.labels(model).observe(stats.total_s)
        self._queued.labels(model).observe(stats.queued_s)
        self._prompts.labels(model).observe(stats.prompt_tokens)
        self._answers.labels(model).observe(stats.completion_tokens)
        if stats.ttft_s is not None:
            self._first.labels(model).observe(stats.ttft_s)
            self._prefill.labels(model).observe(max(0.0, stats.ttft_s - stats.queued_s))
            self._decode.labels(model).observe(max(0.0, stats.total_s - stats.ttft_s))
        if stats.itl_s is not None:
            self._each.labels(model).observe(stats.itl_s)

    def text(self, held: Iterable[Held]) -> bytes:
        """All of it, in Prometheus's text format."""
        gauges = (self._running, self._waiting, self._usage)
        for gauge in gauges:
            gauge.clear()
        for one in held:
            load, name = one.engine.load(), one.served.name
            self._running.labels(name).set(load.running)
            self._waiting.labels(name).set(load.waiting)
            self._usage.labels(name).set(load.used / load.blocks if load.blocks else 0)
            before = self._last_preempted.get(name, 0)
            since = load.preemptions - before  # fewer than before: the model was opened anew
            self._preempted.labels(name).inc(since if since >= 0 else load.preemptions)
            self._last_preempted[name] = load.preemptions
        return generate_latest(self._registry)
