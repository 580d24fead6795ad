"""The head that checkpoints bring to guess ahead: what it means, what it changes (nothing), and what becomes of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from localinfer.config import SamplingParams
from localinfer.cost.fit import estimate
from localinfer.engine.draft_ahead import open_ahead
from localinfer.engine.draft_head import HeadDraftRunner
from localinfer.engine.draft_scores import ScoreRow
from localinfer.errors import NotFound
from localinfer.formats.safetensors import SafetensorsFile, write_safetensors
from localinfer.graph import memory
from localinfer.graph.ahead import load_ahead, tokens_ahead
from localinfer.graph.graph import Graph
from localinfer.graph.memory import ahead_bytes
from localinfer.graph.program import load_program
from localinfer.graph.weights import Checkpoint
from localinfer.quantize import quantize_checkpoint
from localinfer.quantize.calibration import CalibrationText
from localinfer.quantize.export import left_out
from localinfer.quantize.plan import TABLES
from localinfer.reference.executor import Executor
from localinfer.speculation.controller import Controller
from localinfer.speculation.drafter import Ask
from tests.engine.running import SAMPLINGS, Eager, make_prompts, open_tiny, run_all, run_one
from tests.graph.oracle import assert_close, transformers_model
from tests.tiny import Family, make_checkpoint

FAMILIES: tuple[Family, ...] = ("qwen3_5_text", "qwen3_5", "qwen3_next", "qwen3_5_moe_text", "glm4_moe")
TEXT = [257, *b"Hello, world. What comes after this, and after that?"]
PROMPTS = make_prompts(4)


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_head(tmp_path_factory.mktemp("hybrid") / "m", "qwen3_5_text")


def with_head(path: Path, family: Family, **more: Any) -> Path:
    said = "num_nextn_predict_layers" if family == "glm4_moe" else "mtp_num_hidden_layers"
    more[said] = 1
    return make_checkpoint(path, family, seed=3, **more)


class Meaning:
    """The head in plain torch: the whole text at once, no cache."""

    def __init__(self, path: Path) -> None:
        self.target, self.ahead = Executor(Checkpoint(path)), Executor(Checkpoint(path, ahead=True))
        self.graph: Graph = self.ahead.checkpoint.graph

    @torch.no_grad()
    def scores(self, tokens: list[int], guesses: list[int]) -> NDArray[np.float32]:
        """After the known `tokens` and each of `guesses` in a row."""
        ids = torch.tensor(tokens)
        theirs = self.target.norm(self.target.checkpoint.graph.head.norm, self.target.through(ids))
        mix, head = self.graph.mix, self.graph.head
        assert mix is not None
        streams, found = [*theirs[:-1]], []
        following = [*tokens[1:], *guesses]
        for n in range(len(tokens) - 1, len(following) + 1):
            embedded = self.target.weight(self.target.checkpoint.graph.embed.table)[torch.tensor(following[:n])]
            parts = (
                self.ahead.norm(mix.embedding_norm, embedded),
                self.ahead.norm(mix.stream_norm, torch.stack(streams)),
            )
            x = self.ahead.linear(mix.matrix, torch.cat(parts, dim=-1))
            made = self.ahead.norm(head.norm, self.ahead.after(self.graph.body, x))
            found.append(self.ahead.linear(head.table, made[-1:])[0])
            streams.append(made[-1])
        return torch.stack(found).numpy()


def opened(path: Path) -> tuple[HeadDraftRunner, NDArray[np.float32]]:
    """The head of the model, and what the model makes of `TEXT` but its last token."""
    target = Checkpoint(path)
    program = load_program(target, threads=1, context=96, kv_blocks=3, kv_bits=16)
    n = len(TEXT) - 1
    rows, hidden = np.arange(n, dtype=np.int32), np.empty((n, program.hidden), np.float32)
    none = np.empty(0, np.int32)
    blocks, logits = np.arange(3, dtype=np.int32)[None], np.empty((0, program.vocab), np.float32)
    program.step(np.array(TEXT[:-1], np.int32), rows, np.zeros(n, np.int32), blocks, none, logits, hidden=hidden)
    return open_ahead(target, program, parallel=1, threads=1, isa="", always=(257,)), hidden


def said(runner: HeadDraftRunner, hidden: NDArray[np.float32], guesses: list[int]) -> NDArray[np.float32]:
    """The head's scores after `TEXT`, and after each of `guesses` in a row."""
    runner.read(0, TEXT, 0, len(hidden), hidden)
    ask = Ask(0, TEXT, 8, lambda logits, taken: None)
    found = [*runner.start([ask])]
    for n in range(1, len(guesses) + 1):
        found += runner.go_on([ask], [guesses[:n]])
    rows = [row.logits.copy() for row in found if isinstance(row, ScoreRow)]
    return np.stack(rows)


@pytest.mark.parametrize("family", FAMILIES)
def test_means_what_the_plain_meaning_means(tmp_path: Path, family: Family) -> None:
    path = with_head(tmp_path / "m", family)
    guesses = [*b" yes"]
    assert_close(said(*opened(path), guesses), Meaning(path).scores(TEXT, guesses), 0.06)


@pytest.mark.parametrize("family", ["qwen3_5_text", "qwen3_next", "glm4_moe"])
def test_the_plain_meaning_is_that_of_transformers(tmp_path: Path, family: Family) -> None:
    """Of the first guess: transformers has one layer for each guess, and ours is used again."""
    from transformers.modeling_layers import MtpModel

    hybrid = {} if family == "glm4_moe" else {"layer_types": ["linear_attention", "full_attention"]}
    path = with_head(tmp_path / "m", family, num_hidden_layers=2, **hybrid)
    model = transformers_model(path)
    model.config.num_mtp_layers, model.config.mtp_layer_types = 1, ["full_attention"]
    head: Any = MtpModel(model, 1)
    stored = Checkpoint(path).stored
    renamed = {
        "mtp.fc.": "layers.0.eh_proj.",
        "mtp.pre_fc_norm_embedding.": "layers.0.enorm.",
        "mtp.pre_fc_norm_hidden.": "layers.0.hnorm.",
        "mtp.norm.": "layers.0.post_norm.",
        "mtp.layers.0.": "layers.0.mtp_block.",
    }
    state = {}
    for old, new in renamed.items():
        for name in stored:
            if name.startswith(old):
                bits = stored[name].read().astype(np.uint32) << 16
                state[new + name.removeprefix(old)] = torch.from_numpy(bits.view(np.float32))
    if family != "qwen3_5_text":
        count = 1 + max(int(name.split(".")[5]) for name in state if ".experts." in name)
        at = "layers.0.mtp_block.mlp.experts"
        each = [
            {part: state.pop(f"{at}.{i}.{part}_proj.weight") for part in ("gate", "up", "down")} for i in range(count)
        ]
        state[f"{at}.gate_up_proj"] = torch.stack([torch.cat((one["gate"], one["up"])) for one in each])
        state[f"{at}.down_proj"] = torch.stack([one["down"] for one in each])
    missing, unexpected = head.load_state_dict(state, strict=False)
    assert not unexpected
    assert not [name for name in missing if name.startswith("layers.")]
    head.eval()
    ids = torch.tensor([TEXT])
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state
        out = head.forward_layer(0, hidden[:, :-1], torch.arange(len(TEXT) - 1)[None], None, input_ids=ids[:, 1:])
        theirs = model.lm_head(out[0, -1:]).numpy()
    assert_close(Meaning(path).scores(TEXT, []), theirs, 1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS.keys())
def test_leaves_no_trace(tmp_path: Path, family: Family, sampling: SamplingParams) -> None:
    path = with_head(tmp_path / "m", family)
    with open_tiny(path, reuse=False) as engine:
        wanted = [run_one(engine, prompt, sampling).token_ids for prompt in PROMPTS]
    with open_tiny(path, draft="mtp", parallel=3) as engine:
        assert isinstance(engine.speculator, Controller)
        engine.speculator = Eager([record.drafter for record in engine.speculator._records.values()])
        found = run_all(engine, PROMPTS, sampling)
    assert [one.token_ids for one in found] == wanted
    assert sum(one.finished.stats.drafted for one in found) > 5


def test_auto_takes_it_and_other_models_have_none(hybrid: Path, llama: Path) -> None:
    with open_tiny(hybrid, draft="auto") as engine:
        assert isinstance(engine.speculator, Controller)
        assert "mtp" in engine.speculator._records
    with pytest.raises(NotFound, match="brings no head"):
        open_tiny(llama, draft="mtp")


def test_a_broken_head_is_said_and_left_out(tmp_path: Path) -> None:
    path = with_head(tmp_path / "m", "qwen3_5_text")
    file = SafetensorsFile(path / "model.safetensors")
    tensors = {name: (info.dtype, file.read(name)) for name, info in file.tensors.items() if name != "mtp.fc.weight"}
    write_safetensors(path / "model.safetensors", tensors)
    with open_tiny(path, draft="auto") as engine:
        assert any("guessing without the model's own head" in note for note in engine.info.notes)


def test_a_trimmed_head_scores_some_tokens(hybrid: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = said(*opened(hybrid), [])
    monkeypatch.setattr(memory, "AHEAD_TOKENS", 128)
    some = said(*opened(hybrid), [])
    assert some.shape[1] == 130  # the first ones, the end of a turn, and what was asked for
    assert np.array_equal(some[0], np.concatenate([whole[0, :128], whole[0, [257, 258]]]))


def test_what_it_takes_is_counted(hybrid: Path, llama: Path) -> None:
    target = Checkpoint(hybrid)
    program = load_ahead(
        Checkpoint(hybrid, ahead=True), tokens_ahead(320, ()), threads=1, isa="", window=2048, parallel=3
    )
    vectors = 4 * Checkpoint(hybrid, ahead=True).graph.vector_values()
    assert ahead_bytes(target, 3) == program.weight_bytes + program.kv_bytes + vectors
    assert ahead_bytes(Checkpoint(llama), 3) == 0
    one, none = (estimate(target, context=64, ahead=ahead) for ahead in (True, False))
    assert one.total_bytes - none.total_bytes == ahead_bytes(target, 1)


def test_exports_say_that_they_leave_it_out(hybrid: Path, llama: Path) -> None:
    (said,) = left_out(hybrid, gguf=False)
    assert "`mtp.fc.weight`" in said
    assert not left_out(hybrid, gguf=True)
    assert not left_out(llama, gguf=False)


@pytest.mark.parametrize(("bits", "method"), [(8, "rtn"), (4, "rtn"), (4, "imatrix"), (4, "gptq")])
def test_quantizing_keeps_it_in_8_bits(tmp_path: Path, hybrid: Path, bits: Any, method: Any) -> None:
    text = CalibrationText(tokens=512)
    quantize_checkpoint(hybrid, tmp_path / "q", bits=bits, method=method, text=text)
    before, after = (Checkpoint(path, ahead=True) for path in (hybrid, tmp_path / "q"))
    for linear in (one for one in after.graph.linears() if one.name not in TABLES):
        assert after.form(linear.name)[0] == 8
        np.testing.assert_allclose(after.matrix(linear.name), before.matrix(linear.name), atol=0.02)
    with open_tiny(tmp_path / "q", reuse=False) as engine:
        wanted = [run_one(engine, prompt, SAMPLINGS["greedy"]).token_ids for prompt in PROMPTS]
    with open_tiny(tmp_path / "q", draft="mtp", parallel=2) as engine:
        assert [one.token_ids for one in run_all(engine, PROMPTS, SAMPLINGS["greedy"])] == wanted


def test_a_head_that_is_one_layer_more_is_quantized_too(tmp_path: Path) -> None:
    path = with_head(tmp_path / "m", "glm4_moe")
    quantize_checkpoint(path, tmp_path / "q", bits=4, method="rtn")
    before, after = (Checkpoint(one, ahead=True) for one in (path, tmp_path / "q"))
    for linear in (one for one in after.graph.linears() if one.name not in TABLES):
        assert after.form(linear.name)[0] == (16 if linear in after.graph.unquantized else 8)
        np.testing.assert_allclose(after.matrix(linear.name), before.matrix(linear.name), atol=0.02)
    with open_tiny(tmp_path / "q", reuse=False) as engine:
        wanted = [run_one(engine, prompt, SAMPLINGS["greedy"]).token_ids for prompt in PROMPTS]
    with open_tiny(tmp_path / "q", draft="mtp", parallel=2) as engine:
        assert [one.token_ids for one in run_all(engine, PROMPTS, SAMPLINGS["greedy"])] == wanted
    (left,) = left_out(tmp_path / "q", gguf=True)
    assert "`mtp.fc.weight" in left
    assert not left_out(make_checkpoint(tmp_path / "none", "glm4_moe"), gguf=True)
