"""LoRA adapters: what is merged is W + weight x alpha / r x B A; what does not fit, or is not followed, is refused."""

import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from localinfer.cli.main import main
from localinfer.errors import LocalInferError
from localinfer.formats.checkpoint_files import open_tensors
from localinfer.graph.stored import widen
from localinfer.graph.weights import Checkpoint
from localinfer.hub.resolve import resolve
from localinfer.loading.adapting import adapted
from localinfer.loading.tell import Tell
from localinfer.quantize.adapters import read_adapter, weighted
from tests.graph.packed import quantized
from tests.tiny import make_checkpoint

MODULES = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj")
Array = NDArray[np.float32]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "base")


def make_adapter(
    folder: Path,
    base: Path,
    *,
    rank: int = 4,
    seed: int = 1,
    modules: tuple[str, ...] = MODULES,
    tensors: Mapping[str, Array] | None = None,
    **config: Any,
) -> tuple[Path, dict[str, Array]]:
    """An adapter as PEFT writes it, and B A of each module."""
    rng, stored, products = np.random.default_rng(seed), open_tensors(base), dict[str, Array]()
    weights = dict[str, Array](tensors or {})
    for module in modules:
        rows, cols = stored[f"{module}.weight"].info.shape
        down = rng.normal(0, 1 / 8, (rank, cols)).astype(np.float32)
        up = rng.normal(0, 1 / 8, (rows, rank)).astype(np.float32)
        weights[f"base_model.model.{module}.lora_A.weight"] = down
        weights[f"base_model.model.{module}.lora_B.weight"] = up
        products[module] = up @ down
    folder.mkdir()
    usual = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "bias": "none"}
    usual["target_modules"] = [module.rpartition(".")[2] for module in modules]
    usual |= {"use_dora": False, "modules_to_save": None, "rank_pattern": {}, "lora_dropout": 0.1}
    (folder / "adapter_config.json").write_text(json.dumps(usual | config), encoding="utf-8")
    save_file(weights, folder / "adapter_model.safetensors")
    return folder, products


def merged(base: Path, *words: str) -> dict[str, Array]:
    made = adapted(resolve(str(base)), words, tell=Tell())
    checkpoint = Checkpoint(made.path)  # it can be opened
    return {
        name: widen(tensor.read()) if tensor.info.dtype == "BF16" else tensor.read()
        for name, tensor in open_tensors(checkpoint.path).items()
    }


def test_adapters_are_added_in_float_each_with_its_weight(base: Path, tmp_path: Path) -> None:
    one, first = make_adapter(tmp_path / "one", base, alpha_pattern={"mlp.down_proj": 2})
    two, second = make_adapter(tmp_path / "two", base, rank=2, seed=2, modules=MODULES[:1], use_rslora=True)
    before = {name: widen(tensor.read()) for name, tensor in open_tensors(base).items()}
    after = merged(base, str(one), f"{two}=-0.5")
    wanted = dict(before)
    wanted[f"{MODULES[0]}.weight"] = before[f"{MODULES[0]}.weight"] + np.float32(2) * first[MODULES[0]]
    wanted[f"{MODULES[0]}.weight"] += np.float32(-0.5 * 8 / 2**0.5) * second[MODULES[0]]
    wanted[f"{MODULES[1]}.weight"] = before[f"{MODULES[1]}.weight"] + np.float32(0.5) * first[MODULES[1]]
    assert after.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(after[name], values, rtol=1e-6, atol=1e-6, err_msg=name)
    assert not np.array_equal(after[f"{MODULES[0]}.weight"], before[f"{MODULES[0]}.weight"])
    assert merged(base, f"{one}=0")[f"{MODULES[1]}.weight"].tobytes() == before[f"{MODULES[1]}.weight"].tobytes()


def test_it_is_merged_once_and_runs_and_is_quantized_as_the_merged_weights_are(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = make_adapter(tmp_path / "mine", base)

    def call(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([*argv])
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    whole = tmp_path / "whole"
    made = adapted(resolve(str(base)), [str(folder)], tell=Tell())
    whole.mkdir()
    for file in made.path.iterdir():
        (whole / file.name).write_bytes(file.read_bytes())
    words = ("hello there", "-n", "12", "--temp", "0", "--json")
    code, out, err = call("run", str(base), *words, "--adapter", str(folder))
    assert (code, "merging" in err) == (0, False)
    said = json.loads(out)
    assert said["token_ids"] == json.loads(call("run", str(whole), *words)[1])["token_ids"]
    assert said["token_ids"] != json.loads(call("run", str(base), *words)[1])["token_ids"]
    assert said["model"].endswith("+mine")
    flags = ("--bits", "8", "--no-report", "-q")
    assert call("quantize", str(base), "--adapter", str(folder), *flags)[0] == 2
    assert call("quantize", str(base), "--adapter", str(folder), "--name", "me/one", *flags)[0] == 0
    assert call("quantize", str(whole), "--name", "me/two", *flags)[0] == 0
    one, two = (open_tensors(resolve(f"{name}:INT8").path) for name in ("me/one", "me/two"))
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name].read(), two[name].read()) for name in one)
    assert call("run", "me/one:INT8", "x", "--adapter", str(folder))[0] == 5
    assert call("cache", "prune")[0] == 0
    assert not made.path.exists()


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"peft_type": "LOHA"}, 5),
        ({"use_dora": True}, 5),
        ({"bias": "all"}, 5),
        ({"modules_to_save": ["lm_head"]}, 5),
        ({"something_new": 1}, 5),
        ({"alpha_pattern": {"(a+)+$": 1}}, 5),
        ({"tensors": {"base_model.model.lm_head.weight": np.zeros((2, 2), np.float32)}}, 5),
        ({"r": 5}, 7),
        ({"r": None}, 7),
        ({"lora_alpha": "many"}, 7),
        ({"rank_pattern": {"q_proj": 9}}, 7),
        ({"target_modules": ["v_proj"]}, 7),
        ({"target_modules": ["q_proj", "own_proj"]}, 7),
        ({"target_modules": []}, 7),
        ({"target_modules": [5]}, 7),
        ({"target_modules": ["proj"]}, 7),
    ],
    ids=str,
)
def test_what_is_not_followed_or_does_not_fit(base: Path, tmp_path: Path, changes: dict[str, Any], code: int) -> None:
    folder, _ = make_adapter(tmp_path / "odd", base, **changes)
    with pytest.raises(LocalInferError) as error:
        read_adapter(folder, 1.0, Checkpoint(base))
    assert error.value.exit_code == code


def test_targets_may_be_whole_names_and_patterns(base: Path, tmp_path: Path) -> None:
    targets: list[Any] = [[*MODULES], ["0.self_attn.q_proj", "mlp.down_proj", "w9"], ".*_proj", "all-linear", None]
    for at, target in enumerate(targets):
        folder, _ = make_adapter(tmp_path / str(at), base, target_modules=target)
        assert len(read_adapter(folder, 1.0, Checkpoint(base)).deltas) == 2


def test_a_broken_adapter_is_told_before_that_the_weights_are_quantized(base: Path, tmp_path: Path) -> None:
    quantized(base, tmp_path / "INT8", 8, 32)
    whole, _ = make_adapter(tmp_path / "whole", base)
    with pytest.raises(LocalInferError, match="these weights are quantized"):
        read_adapter(whole, 1.0, Checkpoint(tmp_path / "INT8"))
    wrong: list[dict[str, Any]] = [{"r": 5}, {"lora_alpha": "many"}, {"target_modules": ["v_proj"]}]
    for at, changes in enumerate(wrong):
        broken, _ = make_adapter(tmp_path / f"broken{at}", base, **changes)
        with pytest.raises(LocalInferError) as error:
            read_adapter(broken, 1.0, Checkpoint(tmp_path / "INT8"))
        assert error.value.exit_code == 7
    (whole / "adapter_model.safetensors").write_bytes((whole / "adapter_model.safetensors").read_bytes()[:-9])
    with pytest.raises(LocalInferError) as error:
        read_adapter(whole, 1.0, Checkpoint(tmp_path / "INT8"))
    assert error.value.exit_code == 7


def test_an_adapter_of_another_model_is_refused(base: Path, tmp_path: Path, isolated: Path) -> None:
    other = make_checkpoint(tmp_path / "other", hidden_size=96, head_dim=32, num_hidden_layers=1)
    folder, _ = make_adapter(tmp_path / "mine", base, base_model_name_or_path="Org/Right")
    for wrong in (other, make_checkpoint(tmp_path / "short", num_hidden_layers=1)):
        with pytest.raises(LocalInferError) as error:
            read_adapter(folder, 1.0, Checkpoint(wrong))
        assert error.value.exit_code == 7
    for name, works in (("org--right", True), ("org--wrong", False)):
        make_checkpoint(isolated / "localinfer" / "models" / name / "BF16")
        model = resolve(name.replace("--", "/"))
        if works:
            assert adapted(model, [str(folder)], tell=Tell()).path != model.path
        else:
            with pytest.raises(LocalInferError, match="trained on Org/Right"):
                adapted(model, [str(folder)], tell=Tell())
    models = isolated / "localinfer" / "models" / "org--wrong"
    quantized(models / "BF16", models / "INT8", 8, 32)
    with pytest.raises(LocalInferError, match="trained on Org/Right, not on org/wrong"):
        adapted(resolve("org/wrong:INT8"), [str(folder)], tell=Tell())  # that it is quantized is not the first trouble
    for word in ("x=y", "x=nan", "x=1e9"):
        with pytest.raises(LocalInferError):
            weighted(word)
    with pytest.raises(LocalInferError):
        read_adapter(tmp_path / "nowhere", 1.0, Checkpoint(base))
