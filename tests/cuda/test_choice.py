"""Which backend runs, what it says of that, and what happens when the card is missing, too small, wrong or broken."""

import json
from pathlib import Path

import pytest

from localinfer.config import EngineConfig
from localinfer.engine import cuda, cuda_proof
from localinfer.engine.backends import choose
from localinfer.engine.cuda import Card
from localinfer.engine.cuda_speed import Size, read_speeds
from localinfer.errors import DoesNotFit, NotSupported
from localinfer.paths import cuda_dir
from tests.cli.conftest import Cli
from tests.cuda import build
from tests.tiny import make_checkpoint

pytestmark = pytest.mark.xdist_group("cuda")

ANY = EngineConfig()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "m")


def test_a_card_that_passed_is_taken(proved: Card) -> None:
    place = choose("auto", ANY, lambda: 10**6)
    assert place.card == proved
    assert place.why == f"{proved} has passed its test"
    assert choose("cuda", ANY, lambda: 10**6).why == ""
    assert choose("cpu", ANY, lambda: 10**6).card is None


def test_why_the_processor_is_taken(proved: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("auto", ANY, lambda: 10**12).why == f"the model needs 1.0 TB and {proved} has less to give"
    assert choose("auto", EngineConfig(isa="scalar"), lambda: 1).why == "its kernel set scalar is asked for"
    monkeypatch.setenv("LOCALINFER_ISA", "avx2")
    assert choose("auto", ANY, lambda: 1).why == "its kernel set avx2 is asked for"


def test_without_a_driver(cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALINFER_LIBCUDA", "/nowhere/libcuda.so.1")
    ran = cli("run", str(tiny), "hello", "-n", "2", "--backend", "cuda")
    assert ran.code == 5
    assert "error: there is no NVIDIA driver (/nowhere/libcuda.so.1: cannot open" in ran.err
    assert "`--backend cpu`" in ran.err
    ran = cli("run", str(tiny), "hello", "-n", "2")
    assert ran.code == 0
    assert "on cpu, as there is no NVIDIA driver: " in ran.err


def test_on_a_card(cli: Cli, tiny: Path, proved: Card) -> None:
    there, here = (
        cli("run", str(tiny), "hello", "-n", "8", "--temp", "0.8", "--seed", "3", "--json", "--backend", backend)
        for backend in ("cuda", "cpu")
    )
    assert there.code == 0
    assert json.loads(there.out)["engine"]["backend"] == "cuda"
    assert json.loads(there.out)["output_hash"] == json.loads(here.out)["output_hash"]
    ran = cli("run", str(tiny), "hello", "-n", "2")
    assert f"on cuda, as {proved} has passed its test: sm_86 kernels, " in ran.err


def test_a_card_that_computes_wrong_is_not_used(
    cli: Cli,
    tiny: Path,
    card: Card,
    proved_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the test would have kept it; that it finds a wrong kernel is tested below."""
    cuda_dir().mkdir(parents=True)
    kept = json.loads((proved_home / "proofs.json").read_text())
    kept["proofs"][0]["failures"] = ["int4 by 32, 8-bit cache: 4 rows at token 43"]
    (cuda_dir() / "proofs.json").write_text(json.dumps(kept))
    ran = cli("run", str(tiny), "hello", "-n", "2", "--backend", "cuda")
    assert ran.code == 5
    assert f"{card} COMPUTES WRONG: 1 of 77 checks differ from the processor, first int4 by 32" in ran.err
    ran = cli("run", str(tiny), "hello", "-n", "2")
    assert ran.code == 0
    assert f"on cpu, as {card} COMPUTES WRONG: 1 of 77 checks" in ran.err


MUTATIONS = {
    "the offset": ("linear.cuh", "total -= W::kOffset *", "total -= 2 * W::kOffset *"),
}


@pytest.fixture(params=MUTATIONS)
def wrong_library(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The stand-in with a kernel that computes something else."""
    file, right, wrong = MUTATIONS[request.param]
    folder = tmp_path / "cuda"
    folder.mkdir()
    (tmp_path / "emu").symlink_to(build.NATIVE / "emu")
    for source in (build.NATIVE / "cuda").iterdir():
        text = source.read_text(encoding="utf-8")
        if source.name == file:
            assert text.count(right) == 1
            text = text.replace(right, wrong)
        (folder / source.name).write_text(text, encoding="utf-8")
    return build.stand_in(tmp_path, tmp_path)


def test_the_test_finds_a_wrong_kernel(wrong_library: Path, proved: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALINFER_LIBCUDA", str(wrong_library))
    proof = cuda_proof.proof_of(cuda.find_card(), again=True)
    assert not proof.passed
    assert cuda_proof.proof_of(cuda.find_card()) == proof  # kept


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("cuMemAlloc_v2:2:3", DoesNotFit, "not enough memory on the NVIDIA card: no memory for weights"),
        ("cuInit:100", NotSupported, "the NVIDIA driver does not start: CUDA error 100"),
        ("cuModuleLoadData:218", NotSupported, "loading the kernels: CUDA error 218"),
        ("cuDeviceGetCount:999", NotSupported, "CUDA error 999"),
    ],
)
def test_what_the_driver_refuses(
    fault: str, error: type[Exception], words: str, proved: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LI_EMU_FAIL", fault)
    with pytest.raises(error, match=words):
        cuda.move(cuda_proof.unmoved(cuda_proof.TOYS[0]), cuda.find_card())


def test_an_old_driver_and_an_old_card(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LI_EMU_SM", "70")
    with pytest.raises(NotSupported, match=r"has compute capability 7\.0, but 7\.5 is needed"):
        cuda.move(cuda_proof.unmoved(cuda_proof.TOYS[0]), cuda.find_card())


def test_without_a_compiler(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALINFER_NVRTC", "/nowhere/libnvrtc.so.12")
    with pytest.raises(NotSupported, match="is not there; tried /nowhere/libnvrtc") as caught:
        cuda.move(cuda_proof.unmoved(cuda_proof.TOYS[0]), card)
    assert caught.value.hint == 'install it with `pip install "localinfer[cuda]"`'


def test_kept_kernels_that_were_damaged_are_made_again(proved: Card) -> None:
    kept = next(cuda_dir().glob("*.cubin"))
    good = kept.read_bytes()
    kept.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert cuda.move(cuda_proof.unmoved(cuda_proof.TOYS[0]), proved) == ""
    assert kept.read_bytes() == good
    kept.unlink()
    kept.mkdir()  # nothing can be kept under this name
    assert "cannot be kept in" in cuda.move(cuda_proof.unmoved(cuda_proof.TOYS[0]), proved)


def test_speeds_are_measured(proved: Card) -> None:
    """Of toys: what an emulator's seconds say is nothing, but every figure is there."""
    ticks = iter(range(10**6))
    speeds = read_speeds(lambda program: cuda.move(program, proved), Size(128, 128, 1), lambda: next(ticks) ** 2.0)
    assert list(speeds) == list(cuda_proof.KINDS)
    assert all(speed > 0 for kind in speeds.values() for speed in kind.values())


def test_what_doctor_says_of_a_card(cli: Cli, proved: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localinfer.engine.cuda_speed.Size", lambda: Size(128, 128, 1))
    ran = cli("doctor", "-q")
    assert ran.code == 0
    for words in (
        "card 0        localinfer emulator, sm_86, 8.6 GB, driver for CUDA 12.9\n",
        "test          passed: 77 checks, the processor's numbers to the last bit\n",
        "libnvrtc.so.12 12.9, the first of ",
        "int4          1 row ",
    ):
        assert words in ran.out
    card = json.loads(cli("doctor", "--json", "-q").out)["cards"]["cards"][0]
    assert card["proof"]["passed"] is True
    assert card["read_bytes_per_s"].keys() <= {*cuda_proof.KINDS}


def test_a_card_newer_than_the_compiler(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest architecture that it knows, for the driver to go on from; said, as it costs time in every process."""
    monkeypatch.setenv("LI_EMU_SM", "200")
    note = cuda.move(cuda_proof.unmoved(cuda_proof.TOYS[0]), cuda.find_card())
    assert "does not know sm_200: the driver compiles the kernels from compute_" in note
