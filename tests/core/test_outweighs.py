"""Smith's rule with set-up times: when the newcomers' waiting outweighs what the others lose."""

from dataclasses import replace

import pytest

from optimizer.core.policy import Rule, Standing, outweighs, verdict
from optimizer.core.thresholds import Thresholds

HERE = Standing(
    model="here", waiting=10, running=2, oldest_age_s=500.0, overdue=5.0, in_place_s=1e3, gate=4, served=True,
    passed=0, load_s=6.0, evict_s=0.7, claim=10 / 90, work_s=176.0,
)  # fmt: skip
NEW = replace(HERE, model="new", waiting=2, running=0, overdue=1.0, in_place_s=0.0, claim=2 / 5, work_s=1.0, load_s=1.2)


def test_the_gain_is_the_wait_spared_and_the_loss_the_wait_added() -> None:
    gain = 2 / 5 * 176.0
    loss = 10 / 90 * ((0.7 + 1.2) + 1.0 + (0.7 + 6.0))
    assert outweighs([NEW], [HERE]) == pytest.approx(gain / loss)


def test_who_comes_in_beside_counts_too() -> None:
    beside = replace(NEW, model="beside", claim=0.3, work_s=10.0)
    gain = (2 / 5 + 0.3) * 176.0
    loss = 10 / 90 * ((0.7 + 1.2) + 11.0 + (0.7 + 6.0))
    assert outweighs([NEW, beside], [HERE]) == pytest.approx(gain / loss)


def test_urgent_is_how_many_times_it_must_outweigh() -> None:
    times = outweighs([NEW], [HERE])
    for urgent, rule in ((times * 0.99, Rule.URGENT), (times * 1.01, Rule.GATE), (0.0, Rule.GATE)):
        assert verdict(NEW, [HERE], Thresholds(urgent=urgent)).rule is rule


def test_it_never_cuts_the_stay_short_nor_passes_over_who_waited_longest() -> None:
    thresholds = Thresholds(urgent=1.0)
    assert verdict(NEW, [replace(HERE, in_place_s=50.0)], thresholds).rule is Rule.STAY
    assert verdict(NEW, [replace(HERE, served=False)], thresholds).rule is Rule.GATE
