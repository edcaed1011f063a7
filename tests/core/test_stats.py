"""Windows forget what is old and what is too much, and their summaries are those of what is left."""

from hypothesis import given
from hypothesis import strategies as st

from optimizer.core.stats import Window, quantile, summary

steps = st.lists(st.tuples(st.floats(0, 5), st.sampled_from([0.0, 0.5, 1.0, 1.5, 7.0])), max_size=60)


@given(steps, st.integers(1, 20))
def test_a_window_is_the_newest_samples_of_its_horizon(arrivals, most):
    window, now, kept = Window(10.0, most), 0.0, []
    for pause, value in arrivals:
        now += pause
        window.add(now, value)
        kept = [(at, v) for at, v in [*kept, (now, value)] if at >= now - 10.0][-most:]
        assert window.values(now) == [v for _, v in kept]
        assert window.summary(now) == summary([v for _, v in kept])
    assert window.summary(now + 10.1).count == 0


def test_quantiles_are_nearest_rank():
    assert quantile([], 0.5) == 0.0
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.95) == 4.0
