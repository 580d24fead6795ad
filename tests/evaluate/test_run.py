"""Whole evaluations of tiny models, through the kernels."""

import json
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from localinfer.errors import Corrupt, DoesNotFit, LocalInferError, NotFound, UsageError
from localinfer.evaluate import Quality, evaluate, held_out_text, read_text
from localinfer.evaluate.models import size_of
from localinfer.evaluate.text import cut
from localinfer.formats.tokenizer import Tokenizer
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import quantize_checkpoint
from tests.graph.running import load, run
from tests.tiny import BOS, FAMILIES, Family, make_checkpoint, put_bos_first, random_weights, tiny_config, write_weights

CTX = 32
TEXT = held_out_text()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, and smaller forms of it."""
    folder = tmp_path_factory.mktemp("models")
    source = make_checkpoint(folder / "BF16")
    widths: tuple[Literal[8, 4, 3], ...] = (8, 4, 3)
    for bits in widths:
        quantize_checkpoint(source, folder / f"INT{bits}", bits=bits)
    return {path.name: path for path in folder.iterdir()}


def figures(quality: Quality) -> dict[str, object]:
    """All but the clock's."""
    return {name: getattr(quality, name) for name in quality.__slots__ if name != "seconds"}


def test_against_the_definition(models: dict[str, Path]) -> None:
    """Every figure from logits of whole chunks, in float64."""
    quality = evaluate([models["INT4"]], models["BF16"], TEXT, ctx=CTX, chunks=3, kv_bits=16)[0]
    ids = np.array(Tokenizer(models["BF16"]).encode_text(TEXT)[: 3 * CTX]).reshape(3, CTX)
    teacher, student = load(models["BF16"]), load(models["INT4"])
    kld, nll, before, same = [], [], [], []
    for chunk in ids.tolist():
        p, q = (run(model, chunk).astype(np.float64) for model in (teacher, student))
        log_p, log_q = (x - np.log(np.exp(x).sum(axis=1, keepdims=True)) for x in (p, q))
        for at in range(CTX // 2, CTX - 1):
            kld.append((np.exp(log_p[at]) * (log_p[at] - log_q[at])).sum())
            nll.append(-log_q[at, chunk[at + 1]])
            before.append(-log_p[at, chunk[at + 1]])
            same.append(p[at].argmax() == q[at].argmax())
    assert quality.tokens == len(kld) == 3 * (CTX // 2 - 1)
    assert quality.kld_mean == pytest.approx(np.mean(kld), rel=1e-9)
    assert quality.kld_p99 == pytest.approx(np.quantile(kld, 0.99), rel=1e-9)
    assert quality.ppl == pytest.approx(np.exp(np.mean(nll)), rel=1e-12)
    assert quality.ppl_reference == pytest.approx(np.exp(np.mean(before)), rel=1e-12)
    assert quality.top1_agreement == np.mean(same)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_against_itself(tmp_path: Path, family: Family) -> None:
    path = make_checkpoint(tmp_path / "m", family)
    exact = evaluate([path], path, TEXT, ctx=CTX, chunks=2, kv_bits=16)[0]
    assert (exact.kld_mean, exact.kld_max, exact.top1_agreement, exact.ppl_ratio) == (0, 0, 1, 1)
    assert exact.kld_floor == 0
    cached = evaluate([path], path, TEXT, ctx=CTX, chunks=2, kv_bits=8)[0]
    assert cached.kld_floor == cached.kld_mean
    assert 0 < (cached.kld_mean or 0) < 0.05


def test_fewer_bits_lose_more(models: dict[str, Path]) -> None:
    found = evaluate([models[f"INT{bits}"] for bits in (8, 4, 3)], models["BF16"], TEXT, ctx=64, chunks=4)
    assert [quality.model for quality in found] == ["INT8", "INT4", "INT3"]
    lost = [quality.kld_mean or 0 for quality in found]
    assert lost == sorted(lost)
    assert found[0].bits_per_weight > found[1].bits_per_weight > found[2].bits_per_weight
    assert found[1].body_bits_per_weight == 4.5


def test_neither_company_nor_threads_nor_the_piece_change_a_figure(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = evaluate([models["INT3"]], models["BF16"], TEXT, ctx=64, chunks=2, threads=1)
    monkeypatch.setattr("localinfer.evaluate.run.ROWS", 5)
    company = evaluate([models["INT4"], models["INT3"]], models["BF16"], TEXT, ctx=64, chunks=2, threads=3)
    assert figures(company[1]) == figures(alone[0])


def test_without_a_reference(models: dict[str, Path]) -> None:
    alone = evaluate([models["INT4"]], None, TEXT, ctx=CTX, chunks=2)[0]
    beside = evaluate([models["INT4"]], models["BF16"], TEXT, ctx=CTX, chunks=2)[0]
    assert alone.ppl == beside.ppl
    assert alone.reference is None
    assert alone.kld_mean is alone.kld_floor is None


def test_progress(models: dict[str, Path]) -> None:
    seen: list[tuple[str, int, int]] = []
    evaluate(
        [models["INT4"]],
        models["BF16"],
        TEXT,
        ctx=CTX,
        chunks=2,
        on_progress=lambda what, done, total: seen.append((what, done, total)),
    )
    assert [step for step in seen if step[0] == "reading"] == [("reading", n, 2) for n in range(3)]
    assert ("the cache alone", 2, 2) in seen


def test_chunks_as_llama_perplexity_cuts_them(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m")
    plain = Tokenizer(path)
    ids = plain.encode_text(TEXT)
    assert cut(TEXT, plain, ctx=64, chunks=0).shape == (len(ids) // 64, 64)
    assert cut(TEXT, plain, ctx=64, chunks=2).reshape(-1).tolist() == ids[:128]
    put_bos_first(path)
    begun = cut(TEXT, Tokenizer(path), ctx=64, chunks=2)
    assert begun[:, 0].tolist() == [BOS, BOS]
    assert begun[0, 1:].tolist() == ids[:63]
    assert begun[1, 1:].tolist() == ids[64:127]  # the token under the second BOS is not read


def test_the_text_of_our_own() -> None:
    """Long enough for a report with a vocabulary of the usual size."""
    assert len(TEXT.encode()) > 10_000
    assert "\r" not in TEXT


def test_size_of(models: dict[str, Path]) -> None:
    whole = size_of(models["BF16"])
    assert whole.bits_per_weight == whole.body_bits_per_weight == 16
    assert whole.nbytes == Checkpoint(models["BF16"]).nbytes


def refused(kind: type[LocalInferError], words: str, *models: Path, text: str = TEXT, ctx: int = CTX) -> None:
    with pytest.raises(kind, match=words) as error:
        evaluate(models[:-1], models[-1], text, ctx=ctx, chunks=2)
    assert error.value.hint


def test_refusals(models: dict[str, Path], tmp_path: Path) -> None:
    int4, source = models["INT4"], models["BF16"]
    refused(UsageError, "the text has 1 tokens, but one chunk takes 32", int4, source, text="a")
    refused(UsageError, "the text has 0 tokens", int4, source, text="")
    refused(UsageError, "made for 512", int4, source, ctx=513)
    refused(UsageError, "ctx is 4", int4, source, ctx=4)
    refused(UsageError, "no model", source)
    larger = make_checkpoint(tmp_path / "larger", vocab_size=352)
    refused(UsageError, "`INT4` has 320 tokens and `larger` has 352", int4, larger)
    with pytest.raises(UsageError, match="`larger` has 352 tokens and `INT4` has 320"):
        evaluate([int4, larger], None, TEXT, ctx=CTX, chunks=2)
    refused(NotFound, "nothing", tmp_path / "nothing", source)


def test_another_vocabulary_of_the_same_size(models: dict[str, Path], tmp_path: Path) -> None:
    other = make_checkpoint(tmp_path / "other")
    document = json.loads((other / "tokenizer.json").read_text())
    vocab = document["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (other / "tokenizer.json").write_text(json.dumps(document))
    refused(UsageError, "`other` and `BF16` have vocabularies of 320 different tokens", other, models["BF16"])


def test_scores_that_are_no_numbers(models: dict[str, Path], tmp_path: Path) -> None:
    """Finite weights whose products are not."""
    path = tmp_path / "hot"
    shutil.copytree(models["BF16"], path)
    weights = random_weights(tiny_config("llama"), seed=0)
    weights["lm_head.weight"][7] = 3e38
    write_weights(path, weights, "bfloat16")
    refused(
        Corrupt, "`hot` gives 1 scores that are no finite numbers at token 16 to 30 of chunk 1", path, models["BF16"]
    )


def test_models_that_do_not_fit_together(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localinfer.evaluate.run.available_bytes", lambda: 1000)
    refused(DoesNotFit, "these 2 models need .* together, but 1.0 kB is free", models["INT4"], models["BF16"])


def test_texts_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        read_text(tmp_path / "none")
    with pytest.raises(NotFound, match="is a directory"):
        read_text(tmp_path)
    (tmp_path / "latin").write_bytes(b"caf\xe9 au lait")
    with pytest.raises(UsageError, match="not UTF-8 at byte 3"):
        read_text(tmp_path / "latin")
