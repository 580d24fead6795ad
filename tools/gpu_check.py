"""What an NVIDIA card says of our kernels, in one command: `make gpu-check`.

Makes an environment of its own, builds the extension there, then asks four things: does the card
give the processor's bits (`doctor`), do the tests of the room `cuda` pass on the real driver, how
fast is it, and what do graphs save. All answers go into one JSON file, also when some of them are
missing: each part has its exit code, its seconds and the end of what it printed.

Needs Python 3.11 or newer with `venv`, g++, a driver, and the wheels that `--list` names with what
they need themselves, in a folder (`--wheels`): `--fetch 3.12` puts them there, on a machine with a
network, for that version of Python. CMake, ninja and NVRTC may be the machine's own: then their
wheels may be left out. Nothing is fetched otherwise, unless `--online` is given. `--stand-in` asks
the same of a tiny model and our stand-in for the driver.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BUILD = ("scikit-build-core", "nanobind", "pathspec", "packaging")
PROGRAMS = ("cmake", "ninja")
"""Needed too, where they are not on the path."""

TESTS = ("pytest", "pytest-asyncio", "pytest-xdist", "pluggy", "iniconfig", "execnet", "hypothesis", "sortedcontainers")
NVIDIA = ("nvidia-cuda-nvrtc-cu12", "nvidia-ml-py")
CUDA_TESTS = ("tests/cuda/test_equality.py", "tests/cuda/test_engine.py")
PROOF = """
import json
from dataclasses import asdict
from localinfer.engine import cuda, cuda_proof
print(json.dumps(asdict(cuda_proof.proof_of(cuda.find_card(), again=True))))
"""
"""What `doctor` asks first; it also measures large matrices, for which an emulator would need hours."""

TAIL = 4000
"""Characters kept of what a part printed."""

SHAPE = "qwen2-1.5b"
WIDTHS = ("INT8", "INT4", "INT3", "BF16")
ROWS = "1,4,8,16"
TESTS_OF_SPEED = "pp512,tg64,tg32@d4096,tg32@d16384"


@dataclass
class Part:
    """One thing that was asked."""

    name: str
    command: list[str]
    code: int | None = None
    """None: not begun, because the time was up."""
    seconds: float = 0.0
    answer: Any = None
    """What it printed as JSON."""
    tail: str = ""


@dataclass
class Check:
    """All parts, and the time they may take together."""

    limit_s: float
    started: float = field(default_factory=time.monotonic)
    parts: list[Part] = field(default_factory=list)

    @property
    def left_s(self) -> float:
        return self.limit_s - (time.monotonic() - self.started)

    def run(self, name: str, *command: object, environment: dict[str, str], reads_json: bool = False) -> Part:
        """Run one part in what is left of the time, and keep what it said."""
        part = Part(name, [str(word) for word in command])
        self.parts.append(part)
        if self.left_s < 1:
            print(f"{name}: no time left", flush=True)
            return part
        print(f"{name}: {' '.join(part.command)}", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            try:
                part.code = subprocess.run(
                    part.command, cwd=ROOT, env=environment, stdout=out, stderr=err, timeout=self.left_s, check=False
                ).returncode
            except subprocess.TimeoutExpired:
                part.code = 124
            said, complained = (_all_of(stream) for stream in (out, err))
        part.seconds = round(time.monotonic() - began, 2)
        if reads_json and part.code == 0:
            part.answer = json.loads(said)
            said = ""
        part.tail = (said + complained)[-TAIL:]
        print(f"{name}: exit code {part.code}, {part.seconds:.1f} s", flush=True)
        if part.code != 0:
            print(part.tail, flush=True)
        return part


def _all_of(stream: Any) -> str:
    stream.seek(0)
    text: str = stream.read()
    return text


def wheels() -> list[str]:
    """What must lie beside, as `name==version`: our own needs, how we build, and what the tests use."""
    pins = dict(
        line.strip().split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    ours = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    wanted = (*_needs(), *BUILD, *PROGRAMS, *TESTS, *NVIDIA)
    return [f"{name}=={ours[name]}" if name in ours else name for name in dict.fromkeys(wanted)]


def _needs() -> list[str]:
    """Names in `dependencies` of pyproject.toml."""
    import re
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [re.split(r"[<>=;\[ ]", line, maxsplit=1)[0].lower() for line in project["dependencies"]]


def fetch(folder: Path, version: str) -> int:
    """Put all wheels into `folder`, for Linux on x86-64 and this version of Python; pip's exit code."""
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)] + ["manylinux2014_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--python-version", version]
    command += [word for platform in platforms for word in ("--platform", platform)]
    command += ["-c", str(ROOT / "constraints.txt"), "-d", str(folder), *wheels()]
    return subprocess.run(command, check=False).returncode


def install(check: Check, python: Path, folder: Path, online: bool, environment: dict[str, str]) -> bool:
    """The environment, with our extension built in it; packages of the machine are seen too (NVRTC may be there)."""
    made = check.run(
        "environment",
        sys.executable,
        "-m",
        "venv",
        "--system-site-packages",
        python.parents[1],
        environment=environment,
    )
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    source = [] if online else ["--no-index", "--find-links", folder]
    extras = "[cuda]" if online or any(folder.glob("nvidia_cuda_nvrtc*")) else ""
    programs = [name for name in PROGRAMS if shutil.which(name) is None]
    packages = check.run("packages", *pip, *source, *BUILD, *programs, *TESTS, environment=environment)
    built = check.run("build", *pip, *source, "--no-build-isolation", "-e", f".{extras}", environment=environment)
    return made.code == packages.code == built.code == 0


def questions(check: Check, python: Path, tiny: bool, environment: dict[str, str]) -> None:
    """Everything that the card is asked, the most telling first."""
    doctor = ["-c", PROOF] if tiny else ["-m", "localinfer", "doctor", "--recalibrate", "--json"]
    check.run("proof", python, *doctor, environment=environment, reads_json=True)
    tests = [f"{CUDA_TESTS[1]}::test_drafts_and_company_change_nothing"] if tiny else CUDA_TESTS
    real = environment | {"LOCALINFER_TEST_CARD": environment.get("LOCALINFER_LIBCUDA", "libcuda.so.1")}
    check.run("tests", python, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", *tests, environment=real)
    if tiny:
        folder = Path(environment["LOCALINFER_HOME"]).parent / "tiny"
        make = "import sys; from pathlib import Path; from tests.tiny import make_checkpoint as m; m(Path(sys.argv[1]))"
        check.run("model", python, "-c", make, folder, environment=environment)
        bench(check, python, [str(folder)], "pp8,tg2", "1,4", environment)
        return
    for width in WIDTHS:
        bench(check, python, ["--random", f"{SHAPE}:{width}"], TESTS_OF_SPEED, ROWS, environment)
    plain = environment | {"LOCALINFER_CUDA_GRAPHS": "0"}
    bench(check, python, ["--random", f"{SHAPE}:INT4"], TESTS_OF_SPEED, ROWS, plain)


def bench(check: Check, python: Path, model: list[str], tests: str, rows: str, environment: dict[str, str]) -> None:
    """Rows, prefill, decode, and attention at depth, of one model; energy is NVML's where it can be read."""
    graphs = ", no graphs" if "LOCALINFER_CUDA_GRAPHS" in environment else ""
    command = [python, "-m", "localinfer", "bench", *model, "--backend", "cuda", "--test", tests, "--rows", rows]
    command += ["--reps", "3", "--no-history", "--json"]
    check.run(f"bench {model[-1]}{graphs}", *command, environment=environment, reads_json=True)


def stand_in(folder: Path) -> Path:
    """Compile the driver that stands in for NVIDIA's, with our kernels in the emulator."""
    sys.path.insert(0, str(ROOT))
    from tests.cuda import build

    folder.mkdir(parents=True, exist_ok=True)
    return build.stand_in(folder, build.NATIVE)


def main() -> int:
    """Exit code 0: every part ended well."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--wheels", type=Path, default=ROOT / "wheels", help="folder of wheels")
    words.add_argument("--list", action="store_true", help="name the wheels that are needed, and stop")
    words.add_argument("--fetch", metavar="VERSION", help="put them there for this version of Python, and stop")
    words.add_argument("--online", action="store_true", help="let pip fetch what is missing")
    words.add_argument("--python", type=Path, help="use this environment's Python as it is; install nothing")
    words.add_argument("--stand-in", action="store_true", help="run tiny models on our stand-in for the driver")
    words.add_argument("--limit", type=float, default=480, metavar="SECONDS", help="time for everything")
    words.add_argument("-o", "--out", type=Path, default=Path("gpu-check.json"))
    asked = words.parse_args()
    if asked.list:
        print("\n".join(wheels()))
        return 0
    if asked.fetch:
        return fetch(asked.wheels, asked.fetch)
    check = Check(asked.limit)
    with tempfile.TemporaryDirectory() as folder:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("LOCALINFER_", "PYTHON"))}
        environment |= {"LOCALINFER_HOME": f"{folder}/home", "HF_HOME": f"{folder}/hub", "NO_COLOR": "1"}
        environment["PYTHONPATH"] = str(ROOT)
        if asked.stand_in:
            environment["LOCALINFER_LIBCUDA"] = str(stand_in(Path(folder) / "driver"))
        python = asked.python or Path(folder) / "venv/bin/python"
        if asked.python or install(check, python, asked.wheels.resolve(), asked.online, environment):
            questions(check, python, asked.stand_in, environment)
    done = bool(check.parts) and all(part.code == 0 for part in check.parts)
    report = {
        "passed": done,
        "stand_in": asked.stand_in,
        "seconds": round(time.monotonic() - check.started, 1),
        "commit": _commit(),
        "parts": [asdict(part) for part in check.parts],
    }
    text = json.dumps(report, indent=1).replace(str(ROOT), ".").replace(str(Path.home()), "~")
    partial = asked.out.with_suffix(".part")
    partial.write_text(text + "\n")
    partial.replace(asked.out)
    print(f"{'passed' if done else 'FAILED'}: see {asked.out}")
    return 0 if done else 1


def _commit() -> str | None:
    if shutil.which("git") is None:
        return None
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


if __name__ == "__main__":
    sys.exit(main())
