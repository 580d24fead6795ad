"""Metadata that changes the result, through `import` and `run`: what transformers says of the model that is meant."""

import json
from pathlib import Path
from typing import Any

import pytest

from localinfer.formats.checkpoint_files import open_tensors
from localinfer.graph.stored import narrow, widen
from localinfer.graph.weights import Checkpoint
from localinfer.paths import models_dir
from tests.cli.conftest import Cli
from tests.formats.files import write
from tests.formats.gguf_models import Kinds, Pairs, gguf_of, split_of, tokenizer_pairs
from tests.graph.oracle import run_transformers
from tests.tiny import BOS, IM_END, Family, make_checkpoint, write_weights

TEXT = "Hello world"
IDS = list(TEXT.encode())
COUNT = 16
FLAGS = ("--temp", "0", "--json", "-q", "--no-remember", "--kv-bits", "16")


def tiny(folder: Path, family: Family = "llama", **config: Any) -> Path:
    """A model whose vocabulary is bytes, so that everybody cuts the text alike; its weights are bf16's, as F32."""
    path = make_checkpoint(folder, family, dtype="float32", seed=11, vocab_size=262, **config)
    weights = {name: widen(narrow(name, tensor.read())) for name, tensor in open_tensors(path).items()}
    write_weights(path, weights, "float32", 1)
    return path


def right(source: Path, ids: list[int] = IDS, **config: Any) -> list[int]:
    """transformers' greedy tokens after `ids`, with `config` said of the model too."""
    path = source / "config.json"
    said = path.read_text()
    path.write_text(json.dumps(json.loads(said) | config))
    try:
        return run_transformers(source, ids, COUNT)[0][len(ids) :]
    finally:
        path.write_text(said)


def answer(cli: Cli, file: Path, *more: str) -> dict[str, Any]:
    """`import` the file and `run` what it became."""
    made = cli("import", str(file), "--json", *more)
    assert made.code == 0, made.err
    ran = cli("run", json.loads(made.out)["ref"], "--raw", TEXT, "-n", str(COUNT), *FLAGS)
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


def as_file(tmp_path: Path, source: Path, extra: Pairs | None = None, kinds: Kinds | None = None) -> Path:
    return write(tmp_path / "x.gguf", gguf_of(source, extra=extra, kinds=kinds))


def refused(cli: Cli, file: Path, words: str) -> str:
    """`import` ends with exit code 5 and `words`, and leaves no file of a model."""
    ran = cli("import", str(file))
    assert ran.code == 5, ran.out
    assert words in ran.err
    assert not [path for path in models_dir().rglob("*") if ".locks" not in path.parts and path.name != ".locks"]
    return ran.err


@pytest.mark.parametrize("key", ["rope.scale_linear", "rope.scaling.factor"])
def test_scaled_without_a_type(cli: Cli, tmp_path: Path, key: str) -> None:
    source = tiny(tmp_path / "source")
    expected = right(source, rope_scaling={"rope_type": "linear", "factor": 4.0})
    assert expected != right(source)
    assert answer(cli, as_file(tmp_path, source, {f"llama.{key}": ("f32", 4.0)}))["token_ids"] == expected


def test_scaled_full_layers_of_gemma(cli: Cli, tmp_path: Path) -> None:
    source = tiny(
        tmp_path / "source", "gemma3_text", query_pre_attn_scalar=32, num_hidden_layers=6, sliding_window_pattern=6
    )
    expected = right(source, rope_scaling={"rope_type": "linear", "factor": 8.0})
    assert answer(cli, as_file(tmp_path, source, {"gemma3.rope.scaling.factor": ("f32", 8.0)}))["token_ids"] == expected


def test_soft_cap(cli: Cli, tmp_path: Path) -> None:
    source = tiny(
        tmp_path / "source", "gemma3_text", query_pre_attn_scalar=32, num_hidden_layers=6, sliding_window_pattern=6
    )
    expected = right(source, final_logit_softcapping=1.0)
    found = answer(cli, as_file(tmp_path, source, {"gemma3.final_logit_softcapping": ("f32", 1.0)}))
    assert found["token_ids"] == expected
    (made,) = models_dir().glob("*/BF16")
    assert json.loads((made / "config.json").read_text())["final_logit_softcapping"] == 1.0
    assert Checkpoint(made).spec.logit_softcap == 1.0


def test_bos_by_the_pre_tokenizer(cli: Cli, tmp_path: Path) -> None:
    source = tiny(tmp_path / "source")
    extra: Pairs = {"tokenizer.ggml.pre": ("str", "llama-bpe"), "tokenizer.ggml.add_bos_token": ("bool", None)}
    found = answer(cli, as_file(tmp_path, source, extra))
    assert found["prompt_tokens"] == 12
    assert found["token_ids"] == right(source, [BOS, *IDS])


@pytest.mark.parametrize("kind", [1, 4])
def test_an_end_of_turn_of_another_type(cli: Cli, tmp_path: Path, kind: int) -> None:
    """The model is one that says `<|im_end|>`: a token that it says has its name."""
    source = tiny(tmp_path / "source")
    said = right(source)
    at = next(i for i, token in enumerate(said) if i > 1 and token not in (*IDS, *said[:i]) and token < 256)
    pairs = tokenizer_pairs(source, "gpt-2")
    tokens, kinds = pairs["tokenizer.ggml.tokens"][1][1], pairs["tokenizer.ggml.token_type"][1][1]
    tokens[said[at]], tokens[IM_END] = tokens[IM_END], tokens[said[at]]
    kinds[said[at]], kinds[IM_END] = kind, 1
    found = answer(cli, as_file(tmp_path, source, pairs | {"tokenizer.ggml.eos_token_id": ("u32", 257)}))
    assert found["finish_reason"] == "stop"
    assert found["token_ids"] == said[:at]


def test_yarn(cli: Cli, tmp_path: Path) -> None:
    source = tiny(tmp_path / "source")
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
    expected = right(source, rope_scaling=yarn)
    assert expected != right(source)
    extra: Pairs = {"llama.rope.scaling.type": ("str", "yarn"), "llama.rope.scaling.factor": ("f32", 4.0)}
    extra |= {"llama.rope.scaling.original_context_length": ("u32", 128)}
    assert answer(cli, as_file(tmp_path, source, extra))["token_ids"] == expected


def test_half_a_yarn(cli: Cli, tmp_path: Path) -> None:
    extra: Pairs = {"llama.rope.scaling.type": ("str", "yarn"), "llama.rope.scaling.factor": ("f32", 4.0)}
    extra |= {"llama.rope.scaling.yarn_ext_factor": ("f32", 0.5)}
    refused(cli, as_file(tmp_path, tiny(tmp_path / "source"), extra), "`llama.rope.scaling.yarn_ext_factor` is 0.5")


def test_a_merge_that_makes_no_token(cli: Cli, tmp_path: Path) -> None:
    source = tiny(tmp_path / "source")
    merges = tokenizer_pairs(source, "gpt-2")["tokenizer.ggml.merges"][1][1]
    extra: Pairs = {"tokenizer.ggml.merges": ("arr", ("str", [*merges, "a \u0120"]))}
    refused(cli, as_file(tmp_path, source, extra), "the merge 'a \u0120' is of no use")


@pytest.mark.parametrize(("token", "name"), [("", "[EMPTY_261]"), ("a", "[DUPLICATE_261]")])
def test_a_token_that_is_empty_or_there_twice(cli: Cli, tmp_path: Path, token: str, name: str) -> None:
    source = tiny(tmp_path / "source")
    pairs = tokenizer_pairs(source, "gpt-2")
    merges = pairs["tokenizer.ggml.merges"][1][1]
    pairs["tokenizer.ggml.tokens"][1][1][261] = token
    del merges[2:]
    found = answer(cli, as_file(tmp_path, source, pairs))
    assert found["token_ids"] == right(source)
    (made,) = models_dir().glob("*/BF16")
    assert json.loads((made / "tokenizer.json").read_text())["model"]["vocab"][name] == 261


def test_no_key_of_an_architecture_is_dropped(cli: Cli, tmp_path: Path) -> None:
    file = as_file(tmp_path, tiny(tmp_path / "source"), {"llama.embedding_scale": ("f32", 12.0)})
    assert "--backend llamacpp" in refused(cli, file, "`llama.embedding_scale` is 12.0")


@pytest.mark.parametrize(("kind", "form"), [("Q8_0", "INT8"), ("Q4_0", "INT4")])
def test_bits_are_kept(cli: Cli, tmp_path: Path, kind: str, form: str) -> None:
    source = tiny(tmp_path / "source")
    file = as_file(tmp_path, source, kinds={"*": kind})
    made = cli("import", str(file), "--name", "kept")
    assert made.code == 0
    assert f"{kind} became {form} by groups of 32: exactly" in made.err
    for ref, bits in (("kept", form), (f"kept:{form}", form)):
        ran = cli("run", ref, "--raw", TEXT, "-n", "4", *FLAGS)
        assert json.loads(ran.out)["bits"] == bits
    assert cli("import", str(file), "--name", "kept", "--bits", "16").out.startswith("kept:BF16 ")
    assert cli("quantize", "kept", "--bits", "8", "--no-report", "--name", "again").code == 0
    assert cli("import", str(file), "--bits", "4").code == 2


def test_a_split_file(cli: Cli, tmp_path: Path) -> None:
    source = tiny(tmp_path / "source")
    for number, data in enumerate(split_of(source, 2), 1):
        last = write(tmp_path / f"x-{number:05d}-of-00002.gguf", data)
    assert answer(cli, last)["token_ids"] == right(source)


def test_a_gguf_file_is_evaluated_as_it_is_imported(cli: Cli, tmp_path: Path) -> None:
    """`eval` of a file is `eval` of what it is imported as, and needs no llama.cpp."""
    file = as_file(tmp_path, tiny(tmp_path / "source"), kinds={"*": "Q8_0"})
    text = write(tmp_path / "text.txt", (TEXT * 40).encode())
    assert cli("import", str(file), "--name", "kept").code == 0
    flags = ("--text", str(text), "--ctx", "64", "--chunks", "2", "--json", "-q")
    ran = cli("eval", str(file), "kept", *flags)
    assert ran.code == 0, ran.err
    of_file, of_model = json.loads(ran.out)
    assert of_file["ppl"] == of_model["ppl"]
