"""Measure the scaled mode's faults: each of them, so many rounds, on one installation.

    .venv/bin/python -m tests.acceptance.measure_faults --rounds 10 [--agents 8] [--faults engine,redis]

Prints one line a fault with the worst and the median recovery and how the requests ended; exit status 1 when something
hung, was answered twice, ended without a word, took longer than RECOVERY_S, or an accepted durable task was lost.
"""

import argparse
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.acceptance import faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--faults", default=",".join(faults.FAULTS))
    wanted = parser.parse_args()
    seen: dict[str, list[faults.Figures]] = {}
    with tempfile.TemporaryDirectory() as directory, faults.ground(Path(directory)) as ground:
        for number in range(wanted.rounds):
            for fault in wanted.faults.split(","):
                figures = faults.suffer(ground, fault, wanted.agents)
                seen.setdefault(fault, []).append(figures)
                print(f"round {number + 1} {figures}", flush=True)
    bad = False
    print(
        "\n| fault | rounds | recovery median | worst | requests | longest bad | twice | durable tasks | problems |"
        "\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for fault, rounds in seen.items():
        outcomes: Counter[str] = Counter()
        for figures in rounds:
            outcomes.update(figures.outcomes)
        recoveries = [figures.recovery_s for figures in rounds]
        problems = [problem for figures in rounds for problem in figures.problems]
        twice = sum(figures.twice for figures in rounds)
        bad |= bool(problems or twice) or max(recoveries) > faults.RECOVERY_S
        ends = ", ".join(f"{count} {kind}" for kind, count in sorted(outcomes.items()))
        longest = max(figures.longest_s for figures in rounds)
        print(
            f"| {fault} | {len(rounds)} | {statistics.median(recoveries):.1f} s | {max(recoveries):.1f} s | {ends} "
            f"| {longest:.1f} s | {twice} | {sum(figures.tasks for figures in rounds)} | {len(problems)} |"
        )
        for problem in problems:
            print(f"  {problem}")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
