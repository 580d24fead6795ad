"""What a busy neighbour costs: decoding with a spinning process on one core, against decoding alone, in turn.

Not a test: timings depend on the machine. Run on a quiet one, as `python -m tests.native.stolen_core`.
"""

import os
import statistics
import subprocess
import sys
import time

import numpy as np

from tests.native.meaning import Shape, random_model
from tests.native.running import build

ROUNDS, SECONDS = 7, 0.5


def main() -> None:
    shape = Shape(hidden=576, heads=9, kv_heads=3, head_dim=64, ffn=1536, layers=12, vocab=2048)
    program = build(random_model(shape), threads=0)
    one = np.zeros(1, np.int32)
    logits = np.empty((1, program.vocab), np.float32)

    def speed() -> float:
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            program.step(one, one, one, one[None], one, logits)
            steps += 1
        return steps / (time.perf_counter() - start)

    speed()
    alone, beside = [], []
    for _ in range(ROUNDS):
        alone.append(speed())
        spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            os.sched_setaffinity(spinner.pid, {max(os.sched_getaffinity(0))})
            time.sleep(0.1)
            beside.append(speed())
        finally:
            spinner.kill()
            spinner.wait()
    kept = statistics.median(beside) / statistics.median(alone)
    sys.stdout.write(
        f"{program.threads} threads: {statistics.median(alone):.0f} steps/s, {kept:.0%} beside a spinner\n"
    )


if __name__ == "__main__":
    main()
