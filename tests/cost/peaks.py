"""The real peak of a process beside what `fit` says, a line a model: `python -m tests.cost.peaks REF[@CTX] …`.

The process fills its whole context, so that every block of the cache was written.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from localinfer.cost.fit import estimate
from localinfer.hub.resolve import resolve

CHILD = """
import sys
from pathlib import Path
from localinfer.config import EngineConfig, SamplingParams
from localinfer.engine.opening import open_engine
from localinfer.engine.protocol import Request
from localinfer.bench.measure import random_tokens
path, context, parallel = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
config = EngineConfig(context=context, parallel=parallel, kv_tokens=context * parallel, draft="off")
with open_engine(path, config) as engine:
    prompts = [random_tokens(engine, context - 8, str(i)) for i in range(parallel)]
    sampling = SamplingParams(temperature=0.0, max_tokens=4, ignore_eos=True)
    left = {engine.add(Request(prompt, sampling)) for prompt in prompts}
    while left:
        left -= {event.handle for event in engine.step() if type(event).__name__ == "Finished"}
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


@dataclass(frozen=True)
class Peak:
    """Bytes: as predicted, and as they were."""

    predicted: int
    real: int

    @property
    def error(self) -> float:
        return self.predicted / self.real - 1


def peak(path: Path, context: int, parallel: int = 1) -> Peak:
    """Run the model in a process of its own."""
    command = [sys.executable, "-c", CHILD, str(path), str(context), str(parallel)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    fit = estimate(path, context=context, parallel=parallel, kv_tokens=context * parallel)
    return Peak(fit.total_bytes, 1024 * int(ran.stdout.split()[-1]))


if __name__ == "__main__":
    for word in sys.argv[1:]:
        ref, _, context = word.partition("@")
        found = peak(resolve(ref, offline=True).path, int(context or 2048))
        sys.stdout.write(
            f"{ref}: {found.predicted / 1e6:.1f} MB predicted, {found.real / 1e6:.1f} MB real, {found.error:+.1%}\n"
        )
