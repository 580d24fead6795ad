"""A card that fails at any moment: one line, the right exit code, and a process that can go on."""

import threading
from pathlib import Path

import pytest

from localinfer.config import EngineConfig
from localinfer.engine import cuda_proof
from localinfer.engine.cuda import Card
from localinfer.engine.engine import StepEngine
from localinfer.engine.opening import open_engine
from localinfer.errors import NotSupported
from localinfer.paths import cuda_dir
from tests.cli.conftest import Cli
from tests.engine.running import GREEDY, make_prompts, run_one
from tests.tiny import make_checkpoint

pytestmark = pytest.mark.xdist_group("cuda")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "m")


FAULTS = {
    "cuDriverGetVersion:719": (5, "the NVIDIA card failed: asking for the driver's version: CUDA error 719"),
    "cuDeviceGetCount:2": (3, "not enough memory on the NVIDIA card: counting the cards: CUDA error 2 (out of memory)"),
    "cuDeviceGetAttribute:1:1": (5, "the NVIDIA card failed: asking for a card's compute capability: CUDA error 1 ("),
    "cuMemsetD8Async:719": (5, "the NVIDIA card failed: clearing the cache: CUDA error 719"),
    "cuLaunchKernel:719:30": (5, "the NVIDIA card failed: launching a kernel: CUDA error 719"),
    "cuGraphInstantiateWithFlags:2": (3, "not enough memory on the NVIDIA card: making a graph: CUDA error 2"),
    "cuMemAllocHost_v2:2:1": (3, "not enough memory on the NVIDIA card: no memory for pinned memory: 0.0 MB ("),
    "cuStreamSynchronize:700:40": (5, "the NVIDIA card failed: waiting for the card: CUDA error 700"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_fails_is_said_in_one_line(
    fault: str, cli: Cli, tiny: Path, proved: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it happens; afterwards the same process runs the model there."""
    code, words = FAULTS[fault]
    monkeypatch.setenv("LI_EMU_FAIL", fault)
    ran = cli("run", str(tiny), "hello", "-n", "4", "--backend", "cuda")
    assert (ran.code, words in ran.err) == (code, True), ran.err
    assert "`--backend cpu`" in ran.err
    assert "internal error" not in ran.err
    monkeypatch.delenv("LI_EMU_FAIL")
    there, here = (cli("run", str(tiny), "hello", "-n", "4", "--backend", one) for one in ("cuda", "cpu"))
    assert (there.code, there.out) == (0, here.out)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LI_EMU_FAIL", "cuMemAlloc_v2:2:3", "cannot be used: not enough memory on the NVIDIA card: no memory for"),
        ("LI_EMU_FAIL", "cuModuleLoadData:200", "cannot be used: the NVIDIA card failed: loading the kernels: CUDA"),
        ("LI_EMU_FAIL", "cuDeviceGetCount:2", "not enough memory on the NVIDIA card: counting the cards"),
        ("LOCALINFER_NVRTC", "libm.so.6", "cannot be used: NVIDIA's runtime compiler (NVRTC) is not there; tried libm"),
    ],
)
def test_auto_leaves_the_model_to_the_processor(
    name: str, value: str, words: str, cli: Cli, tiny: Path, proved: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card has passed its test, and cannot take this model now."""
    monkeypatch.setenv(name, value)
    ran = cli("run", str(tiny), "hello", "-n", "2")
    assert ran.code == 0
    assert " on cpu, as " in ran.err
    assert words in ran.err


def test_a_card_that_fails_in_its_test_is_not_called_wrong(proved: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    (cuda_dir() / "proofs.json").unlink()
    monkeypatch.setenv("LI_EMU_FAIL", "cuLaunchKernel:719:50")
    with pytest.raises(NotSupported, match="launching a kernel: CUDA error 719"):
        cuda_proof.proof_of(proved)
    assert not (cuda_dir() / "proofs.json").exists()


def test_several_engines_in_threads_on_one_card(tiny: Path, proved: Card) -> None:
    """Each records its graphs while the others allocate, wait and run."""
    prompts, said = make_prompts(2, seed=5), dict[int, list[tuple[int, ...]]]()

    def work(number: int) -> None:
        config = EngineConfig(context=256, parallel=1, threads=1, draft="off")
        with open_engine(tiny, config, backend="cpu" if number == 0 else "cuda") as engine:
            assert isinstance(engine, StepEngine)
            said[number] = [run_one(engine, tuple(prompt), GREEDY).token_ids for prompt in prompts]

    work(0)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == dict.fromkeys(range(5), said[0])
