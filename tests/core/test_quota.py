"""An agent's own limits: who is let in, and when the next one would be."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.core.quota import Quota, Use
from optimizer.core.request import AgentProfile

FREE = AgentProfile("a", "default")


def test_without_limits_everything_is_let_in():
    quota = Quota()
    assert [quota.admit(FREE, 0.0) for _ in range(1000)] == [None] * 1000
    assert quota.use(FREE, 0.0) == Use(1000, None, None)


def test_requests_a_minute_may_come_at_once_and_then_one_by_one():
    agent, quota = replace(FREE, requests_per_minute=30), Quota()
    assert [quota.admit(agent, 0.0) for _ in range(30)] == [None] * 30
    over = quota.admit(agent, 0.0)
    assert over is not None and over.limit == "30 requests a minute"
    assert over.retry_after_s == pytest.approx(2.0)
    assert quota.admit(agent, 2.0) is None and quota.admit(agent, 2.0) is not None


def test_a_refusal_costs_nothing():
    agent, quota = replace(FREE, requests_per_minute=60, max_concurrent=1), Quota()
    assert quota.admit(agent, 0.0) is None
    for _ in range(100):
        assert quota.admit(agent, 0.0) is not None
    assert quota.use(agent, 0.0) == Use(1, 1.0, None)


def test_tokens_are_counted_when_a_request_ends_and_a_debt_is_waited_for():
    agent, quota = replace(FREE, tokens_per_minute=600), Quota()
    assert quota.admit(agent, 0.0) is None and quota.admit(agent, 0.0) is None
    quota.leave(agent, 900, 0.0)
    over = quota.admit(agent, 0.0)
    assert over is not None and over.limit == "600 tokens a minute"
    assert over.retry_after_s == pytest.approx(30.1)  # 301 tokens at 10 a second
    assert quota.use(agent, 0.0).tokens == 900
    assert quota.admit(agent, 30.0) is not None
    assert quota.admit(agent, 30.1) is None


def test_requests_at_once_are_free_again_when_one_ends():
    agent, quota = replace(FREE, max_concurrent=2), Quota()
    assert quota.admit(agent, 0.0) is None and quota.admit(agent, 0.0) is None
    over = quota.admit(agent, 0.0)
    assert over is not None and over.retry_after_s is None and over.limit == "2 requests at once"
    quota.leave(agent, 5, 0.0)
    assert quota.admit(agent, 0.0) is None


def test_agents_do_not_share_limits():
    one, other, quota = (
        replace(FREE, requests_per_minute=1),
        AgentProfile("b", "default", requests_per_minute=1),
        Quota(),
    )
    assert quota.admit(one, 0.0) is None and quota.admit(one, 0.0) is not None
    assert quota.admit(other, 0.0) is None


def test_a_changed_limit_counts_at_once_and_a_lifted_one_is_forgotten():
    wide, tight, quota = replace(FREE, requests_per_minute=100), replace(FREE, requests_per_minute=2), Quota()
    assert quota.admit(wide, 0.0) is None
    assert [quota.admit(tight, 0.0) is None for _ in range(3)] == [True, True, False]
    assert quota.admit(FREE, 0.0) is None
    assert quota.admit(tight, 0.0) is None


@given(
    per_minute=st.integers(1, 600),
    tokens=st.integers(1, 6000),
    steps=st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(0, 3000)), min_size=1, max_size=60),
)
def test_the_promised_moment_is_right_and_not_too_late(per_minute, tokens, steps):
    """Coming back when told is always let in; coming a little before is not."""
    agent, quota, now = replace(FREE, requests_per_minute=per_minute, tokens_per_minute=tokens), Quota(), 0.0
    admitted, spent = 0, 0
    for wait_s, used in steps:
        now += wait_s
        over = quota.admit(agent, now)
        if over is not None:
            assert over.retry_after_s is not None and over.retry_after_s > 0
            assert quota.admit(agent, now + over.retry_after_s * 0.99 - 0.001) is not None
            now += over.retry_after_s
            assert quota.admit(agent, now) is None
        admitted += 1
        spent += used
        quota.leave(agent, used, now)
    most = per_minute * (1 + now / 60)
    assert admitted <= most + 1e-3
    assert spent <= tokens * (1 + now / 60) + max(used for _, used in steps) + 1e-3
