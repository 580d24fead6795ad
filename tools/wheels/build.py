"""Build wheels that need no compiler where they are installed: `python -m tools.wheels.build [TARGET …] [--out DIR]`.

Every target is cross-compiled by `ziglang`, so one machine makes all. Run by Python 3.12 or later it makes wheels
of the stable ABI (`cp312-abi3`), which serve every later Python too; run by 3.11, wheels for 3.11. Needs the
`wheels` extra. What was compiled before and has not changed is not compiled again.
"""

import argparse
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

TARGETS = {
    "linux-x86_64": ("x86_64-linux-gnu.2.28", "manylinux_2_28_x86_64"),
    "linux-aarch64": ("aarch64-linux-gnu.2.28", "manylinux_2_28_aarch64"),
    "musl-x86_64": ("x86_64-linux-musl", "musllinux_1_2_x86_64"),
    "musl-aarch64": ("aarch64-linux-musl", "musllinux_1_2_aarch64"),
    "macos-arm64": ("aarch64-macos.11.0", "macosx_11_0_arm64"),
}
"""What a wheel may be built for: zig's name of the machine, and the wheel's tag."""

ROOT = Path(__file__).parents[2]


def build(target: str, out: Path) -> Path:
    """The wheel of `target`, in `out`. Raises `CalledProcessError` where a step fails; its output is on stderr."""
    triple, tag = TARGETS[target]
    made = ROOT / "build" / "wheels" / target / f"cp{sys.version_info[0]}{sys.version_info[1]}"
    options = [
        f"cmake.define.CMAKE_TOOLCHAIN_FILE={ROOT / 'tools' / 'wheels' / 'zig.cmake'}",
        f"cmake.define.ZIG_TARGET={triple}",
        f"cmake.define.ZIG_PYTHON={sys.executable}",
        f"cmake.define.Python_INCLUDE_DIR={headers(made)}",
        f"build-dir={made / 'cmake'}",
        "install.strip=false",  # the linker has done it; strip knows this machine's files only
    ]
    words = [word for option in options for word in ("-C", option)]
    # Without isolation: in a folder of its own, new each time, nanobind would have every file compiled anew.
    _run("pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "--wheel-dir", str(made), *words)
    (plain,) = made.glob("*.whl")
    told = subprocess.run(
        [sys.executable, "-m", "wheel", "tags", "--remove", "--platform-tag", tag, str(plain)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    out.mkdir(parents=True, exist_ok=True)
    name = told.stdout.split()[-1]
    return (made / name).replace(out / name)


def headers(made: Path) -> Path:
    """Python's headers in a folder of their own, for any target: Debian's `pyconfig.h` leads to another folder for each
    machine, and has none for those that are not this one. What it says holds for all targets, which have 64 bits.
    """
    folder, ours = made / "include", Path(sysconfig.get_path("include"))
    if not folder.exists():
        shutil.copytree(ours, folder)
        of_machine = ours.parent / (sysconfig.get_config_var("MULTIARCH") or "") / ours.name / "pyconfig.h"
        if of_machine.exists():
            shutil.copyfile(of_machine, folder / "pyconfig.h")
    return folder


def _run(*words: str) -> None:
    subprocess.run([sys.executable, "-m", *words], check=True, stdout=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    asked = parser.parse_args()
    if unknown := [target for target in asked.targets if target not in TARGETS]:
        parser.error(f"{', '.join(unknown)}: no such target; there are {', '.join(TARGETS)}")
    for target in asked.targets or TARGETS:
        wheel = build(target, asked.out)
        sys.stdout.write(f"{wheel}  {wheel.stat().st_size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    main()
