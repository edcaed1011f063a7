"""What dies, dies without hanging anybody: kill -9 of every part of the scaled mode, and a cut line.

One round of each in CI; `measure_faults.py` repeats them and gives the figures of docs/scaled.md.
"""

from collections.abc import Iterator

import pytest

from tests.acceptance import faults

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[faults.Ground]:
    with faults.ground(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.mark.parametrize("fault", faults.FAULTS)
def test_streams_finish_or_say_why_and_new_ones_are_answered_soon(ground, fault):
    figures = faults.suffer(ground, fault, agents=6)
    print(figures)
    assert not figures.problems, figures.problems
    assert figures.twice == 0
    assert figures.outcomes["answered"] > 6 and figures.tasks > 6
    assert figures.recovery_s <= faults.RECOVERY_S, figures
