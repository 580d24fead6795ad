"""Opening: what is said about the engine, and every way in which a path or a setting can be wrong."""

import json
import resource
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import localinfer
from localinfer import native
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.engine import StepEngine
from localinfer.engine.generation_config import sampling_from
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Engine, Request
from localinfer.errors import ContextOverflow, Corrupt, DoesNotFit, NotFound, NotSupported, UsageError
from localinfer.events import Finished
from localinfer.extras import install_command
from tests.engine.running import GREEDY, finish
from tests.tiny import make_checkpoint, write_json, write_tokenizer


def test_what_an_engine_says_about_itself(llama: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    config = EngineConfig(context=100, threads=1, kv_bits=16, parallel=2)
    with open_engine(llama, config, name="org/tiny", on_progress=lambda *said: seen.append(said)) as engine:
        info = engine.info
        assert (info.model, info.backend, info.threads, info.kv_bits, info.bits) == ("org/tiny", "cpu", 1, 16, "BF16")
        assert info.isa == native.supported_isas()[-1]
        assert info.why == "the best this CPU has"
        assert info.kv_bytes >= 2 * 100 * 2 * 2 * 2 * 16 * 2  # sequences, tokens, layers, keys and values, heads, ...
        assert info.weight_bytes > 100_000
        assert engine.context_size == 100
        assert engine.chat_template is not None
        assert engine.default_sampling == SamplingParams(temperature=0)
    whats, done, totals = zip(*seen, strict=True)
    assert set(whats) == {"weights"}
    assert list(done) == sorted(done)
    assert done[-1] == totals[-1] == totals[0]


def test_the_kernel_set_says_who_chose_it(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_engine(llama, EngineConfig(isa="scalar", threads=1)) as engine:
        assert (engine.info.isa, engine.info.why) == ("scalar", "asked for")
    monkeypatch.setenv("LOCALINFER_ISA", "scalar")
    with open_engine(llama, EngineConfig(threads=1)) as engine:
        assert (engine.info.isa, engine.info.why) == ("scalar", "asked for by LOCALINFER_ISA")


def test_the_context_is_the_models_own_unless_asked(tmp_path: Path, llama: Path) -> None:
    with open_engine(llama) as engine:
        assert engine.context_size == 512
    long = make_checkpoint(tmp_path / "long", max_position_embeddings=20000)
    with open_engine(long) as engine:
        assert engine.context_size == 8192
    with pytest.raises(UsageError, match=r"513 tokens.* 512"):
        open_engine(llama, EngineConfig(context=513))


def test_paths_that_are_no_model(tmp_path: Path, llama: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        open_engine(tmp_path / "nothing")
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"GGUF")
    for backend in ("auto", "cpu"):
        with pytest.raises(NotSupported, match="not a model directory") as caught:
            open_engine(gguf, backend=backend)
        assert "localinfer import" in str(caught.value.hint)
        assert "--backend llamacpp" in str(caught.value.hint)
    with pytest.raises(NotSupported, match="GGUF files"):
        open_engine(llama, backend="llamacpp")
    with pytest.raises(UsageError, match="backend is 'gpu'"):
        open_engine(llama, backend="gpu")


def test_a_tokenizer_larger_than_the_weights(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", vocab_size=300)
    write_tokenizer(path, 320)
    with pytest.raises(Corrupt, match=r"token 319.* 300 rows") as caught:
        open_engine(path)
    assert caught.value.exit_code == 7


def test_an_end_of_turn_that_has_no_row(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    write_json(path / "generation_config.json", {"eos_token_id": 5000})
    with pytest.raises(Corrupt, match=r"token 5000.* 320 rows"):
        open_engine(path)


def test_a_tokenizer_much_smaller_than_the_weights(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", vocab_size=1400)
    write_tokenizer(path, 320)
    with pytest.raises(Corrupt, match=r"1400 rows.* 320 tokens only") as caught:
        open_engine(path)
    assert caught.value.exit_code == 7


def test_weights_with_more_rows_than_tokens_are_common(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", vocab_size=352)
    write_tokenizer(path, 320)
    with open_engine(path, EngineConfig(context=64, threads=1)) as engine:
        wild = SamplingParams(temperature=100, top_k=0, top_p=1, max_tokens=60, ignore_eos=True)
        events = [*engine.stream(Request((1, 2, 3), wild))]
        assert any(token >= 320 for event in events for token in getattr(event, "token_ids", ()))


def test_no_memory_is_said_with_the_size(tmp_path: Path) -> None:
    """The real thing: the process may not grow by more than half a gigabyte."""
    path = make_checkpoint(tmp_path / "m", max_position_embeddings=1 << 20)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 29), hard))
    try:
        with pytest.raises(DoesNotFit, match=r"not enough memory.*\d") as caught:
            open_engine(path, EngineConfig(context=1 << 20, parallel=64, threads=1))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert caught.value.exit_code == 3
    assert "-c" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, SamplingParams()),
        ({"temperature": 0.6, "top_p": 0.9}, SamplingParams(temperature=0.6, top_p=0.9)),
        ({"do_sample": True, "top_k": 64, "min_p": 0.1}, SamplingParams(top_k=64, min_p=0.1)),
        ({"do_sample": False, "temperature": 0.6}, SamplingParams(temperature=0)),
        ({"repetition_penalty": 1.1, "temperature": None}, SamplingParams(repeat_penalty=1.1)),
        ({"typical_p": 0.9}, SamplingParams(typical_p=0.9)),
        ({"temperature": 1, "unknown": [1]}, SamplingParams(temperature=1)),
        ({"max_new_tokens": 7, "stop_strings": "END"}, SamplingParams(max_tokens=7, stop=("END",))),
        ({"max_new_tokens": 1 << 30, "stop_strings": ["a", "b"]}, SamplingParams(stop=("a", "b"))),
    ],
)
def test_the_makers_advice(config: dict[str, Any], expected: SamplingParams) -> None:
    assert sampling_from(config, "generation_config.json") == expected


NO_SENSE: list[tuple[str, Any]] = [
    ("temperature", -1),
    ("temperature", "hot"),
    ("temperature", float("inf")),
    ("top_k", -1),
    ("top_k", True),
    ("top_k", 1.5),
    ("top_p", 1.5),
    ("min_p", [1]),
    ("repetition_penalty", 0),
    ("max_new_tokens", -1),
    ("stop_strings", [""]),
    ("stop_strings", 5),
]


@pytest.mark.parametrize(("name", "value"), NO_SENSE)
def test_advice_that_makes_no_sense(name: str, value: Any) -> None:
    with pytest.raises(Corrupt, match=f"`{name}`"):
        sampling_from({name: value}, "generation_config.json")


def test_advice_that_is_not_followed_is_told(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    advice = {
        "num_beams": 1,
        "typical_p": 1.0,
        "suppress_tokens": [5],
        "forced_eos_token_id": 2,
        "no_repeat_ngram_size": 3,
        "eos_token_id": [258],
        "repetition_penalty": 1.1,
    }
    (path / "generation_config.json").write_text(json.dumps(advice))
    with open_engine(path, EngineConfig(context=32, draft="off")) as engine:
        told = " ".join(engine.info.notes)
    assert "suppress_tokens" not in told
    assert "forced_eos_token_id" in told
    assert "no_repeat_ngram_size" in told
    assert "num_beams" not in told
    assert "repetition_penalty" not in told


NO_RULE: list[tuple[str, Any]] = [
    ("suppress_tokens", 5),
    ("suppress_tokens", [1.5]),
    ("suppress_tokens", [True]),
    ("suppress_tokens", [1 << 40]),
    ("begin_suppress_tokens", ["a"]),
    ("bad_words_ids", [5]),
    ("bad_words_ids", {"a": 1}),
]


@pytest.mark.parametrize(("name", "value"), NO_RULE)
def test_rules_that_make_no_sense(tmp_path: Path, name: str, value: Any) -> None:
    path = make_checkpoint(tmp_path / "m")
    (path / "generation_config.json").write_text(json.dumps({name: value}))
    with pytest.raises(Corrupt, match=f"`{name}`"):
        open_engine(path)


@pytest.mark.parametrize("draft", ["off", "lookup"])
@pytest.mark.parametrize("name", ["suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "repetition_penalty"])
def test_rules_of_tokens_are_those_of_transformers(tmp_path: Path, name: str, draft: Any) -> None:
    """Greedy tokens are the same, with drafts as without."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    path = make_checkpoint(tmp_path / "m")
    prompt, count = [1, 9, 200, 31, 9, 200, 31, 9], 100
    how: dict[str, Any] = {"threads": 1, "context": 256, "kv_bits": 16, "draft": draft, "remember": False}

    def ours() -> list[int]:
        with open_engine(path, EngineConfig(**how)) as engine:
            sampling = replace(engine.default_sampling, temperature=0.0, max_tokens=count, ignore_eos=True)
            *_, last = engine.stream(Request(tuple(prompt), sampling))
        assert isinstance(last, Finished)
        return list(last.token_ids)

    plain = ours()
    (often, _), *_ = Counter(plain).most_common(1)
    value: Any = {
        "suppress_tokens": [often, -1, 100_000],
        "begin_suppress_tokens": [plain[0]],
        "bad_words_ids": [[plain[3]], plain[5:7], plain[0:3]],
        "repetition_penalty": 1.3,
    }[name]
    (path / "generation_config.json").write_text(json.dumps({name: value}))
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model.generation_config.eos_token_id = None
    ids = torch.tensor([prompt])
    true = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, pad_token_id=0
    )
    found = ours()
    assert found == true[0, len(prompt) :].tolist()
    assert found != plain


def test_bad_advice_is_seen_at_opening(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    (path / "generation_config.json").write_text(json.dumps({"top_p": 7}))
    with pytest.raises(Corrupt, match="`top_p` is 7"):
        open_engine(path)


def test_the_public_names(llama: Path) -> None:
    assert localinfer.open_engine is open_engine
    assert localinfer.Engine is Engine
    assert localinfer.Request is Request
    engine: Engine = localinfer.open_engine(llama, localinfer.EngineConfig(threads=1))
    assert isinstance(engine, StepEngine)
    engine.add(Request((1, 2), GREEDY))
    assert finish(engine)
    engine.close()
    with pytest.raises(AttributeError):
        localinfer.nothing  # noqa: B018


def test_a_missing_extra_is_named(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    monkeypatch.delitem(sys.modules, "llama_cpp.llama_cpp", raising=False)
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"GGUF")
    with pytest.raises(NotSupported, match="not installed") as caught:
        open_engine(gguf, backend="llamacpp")
    assert caught.value.hint == f"run `{install_command('llamacpp')}`"


@pytest.mark.parametrize(("prompt", "hint"), [(70, "-c 256"), (255, "-c 256"), (256, "was made for 256 tokens")])
def test_the_hint_of_an_overflow_stays_within_the_model(tmp_path: Path, prompt: int, hint: str) -> None:
    path = make_checkpoint(tmp_path / "m", max_position_embeddings=256)
    with open_engine(path, EngineConfig(context=64, threads=1)) as engine:
        with pytest.raises(ContextOverflow) as caught:
            engine.add(Request((1,) * prompt, SamplingParams()))
        assert hint in str(caught.value.hint)
