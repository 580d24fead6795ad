"""What the machine does meanwhile: time that its host takes, memory that this process takes, and how fast it is."""

from contextlib import suppress
from pathlib import Path

from localinfer.bench.report import BenchMachine
from localinfer.cost.machine import cpu_generation, cpu_model


def describe_machine(isa: str, threads: int, bandwidth: float, steal: float | None) -> BenchMachine:
    """What a report says of this machine. `int8_tops`: what the integer instructions give."""
    from localinfer import native

    return BenchMachine(
        cpu=cpu_model(),
        cores=native.physical_cores(),
        isa=isa,
        read_gb_s=bandwidth / 1e9,
        int8_tops=native.int8_peak(isa, threads) / 1e12,
        steal=steal,
        generation=cpu_generation(),
    )


def machine_kind() -> dict[str, str]:
    """What makes ratios to other engines comparable, in `BenchMachine`'s fields, the most telling first."""
    from localinfer import native

    return {"isa": native.choose_isa(""), "generation": cpu_generation(), "cpu": cpu_model()}


def stolen_ticks(stat: Path = Path("/proc/stat")) -> tuple[int, int] | None:
    """(ticks taken by the host, all ticks) since the start of this machine."""
    try:
        fields = stat.read_text(encoding="ascii").splitlines()[0].split()[1:9]
        ticks = [int(field) for field in fields]
    except (OSError, ValueError, IndexError):
        return None
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else None


def share_stolen(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    """Which part of the time between two looks the host took."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    return (after[0] - before[0]) / (after[1] - before[1])


def forget_peak() -> None:
    """Count the peak of this process's memory anew, where the system lets us."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes(status: Path = Path("/proc/self/status")) -> int | None:
    """The most memory that this process had since `forget_peak`."""
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith("VmHWM:")), [])
    return int(found[1]) * 1024 if len(found) == 3 and found[1].isdigit() else None
