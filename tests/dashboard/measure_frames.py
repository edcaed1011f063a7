"""What a frame costs to make: `python -m tests.dashboard.measure_frames`. Processor time, so that others do not count.

Rule: the engine of the tests at its busiest: 131 agents, 500 waiting, full windows, a full journal, a full history.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 60


def middle_ms(work: Callable[[int], Any]) -> tuple[float, Any]:
    """(median processor time, the last result)."""
    took, result = [], None
    for number in range(ROUNDS):
        began = time.process_time()
        result = work(number)
        took.append((time.process_time() - began) * 1000)
    return statistics.median(took), result


def main() -> None:
    from controlplane.publisher import SAMPLES, Publisher
    from controlplane.snapshot import snapshot
    from tests.dashboard.test_live import BusyRunner

    runner, publisher = BusyRunner(), Publisher()

    def frame(number: int) -> str:
        runner.now += 1.0
        return publisher.frame(runner, 1e9 + number)

    for number in range(SAMPLES):
        frame(number)
    took, _ = middle_ms(lambda _: snapshot(runner, 1e9))
    print(f"snapshot     {took:.2f} ms")
    took, text = middle_ms(lambda number: frame(SAMPLES + number))
    print(f"frame        {took:.2f} ms, {len(text) / 1000:.1f} kB")
    took, text = middle_ms(lambda _: publisher.first_frame(runner, 1e9 + SAMPLES + ROUNDS))
    print(f"first frame  {took:.2f} ms, {len(text) / 1000:.1f} kB")


if __name__ == "__main__":
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
    with tempfile.TemporaryDirectory() as directory:
        os.environ["NARROWGAUGE_DATA_DIR"] = directory
        django.setup()
        main()
