"""Stored state: what the rows say to the engine, and that every change moves the state version."""

import pytest
from django.core.exceptions import ValidationError

from controlplane.models import Agent, LanguageModel, StateVersion, Tier
from optimizer.core.tiers import STRATEGY_MODELS

pytestmark = pytest.mark.django_db


@pytest.fixture
def tiers() -> dict[str, Tier]:
    rows = [
        Tier(slug=s, name=s.title(), rank=i, purpose="", compression="moderate", target_s=5.0)
        for i, s in enumerate(("default", "sonnet", "opus"))
    ]
    return {tier.slug: tier for tier in Tier.objects.bulk_create(rows)}


def test_a_model_row_gives_back_the_spec_it_was_made_from(tiers):
    for spec in STRATEGY_MODELS:
        row = LanguageModel.from_spec("ollama", spec, is_tier_default=True)
        row.save()
        row.refresh_from_db()
        assert row.spec() == spec


def test_a_measured_figure_counts_before_the_declared_one(tiers):
    row = LanguageModel.from_spec("ollama", STRATEGY_MODELS[0])
    row.measured_footprint_mb, row.measured_decode_tps = 912.4, 99.0
    assert row.spec().footprint_mb == 912
    assert row.spec().decode_tps == 99.0
    assert row.spec().load_s == STRATEGY_MODELS[0].load_s


def test_every_kind_of_change_moves_the_state_version(tiers):
    def moved(change) -> bool:
        before = StateVersion.current()
        change()
        return StateVersion.current() > before

    agent = Agent(slug="scout", name="Scout", tier=tiers["default"])
    assert moved(agent.save)
    assert moved(lambda: Agent.objects.filter(slug="scout").update(paused=True))
    assert moved(lambda: Agent.objects.bulk_create([Agent(slug="b", name="B", tier=tiers["opus"])]))
    assert moved(lambda: Agent.objects.filter(slug="b").delete())
    assert moved(agent.delete)
    assert not moved(lambda: Agent.objects.filter(slug="nobody").update(paused=True))
    assert not moved(lambda: Agent.objects.update_silently(paused=False))


def test_an_agent_outside_its_own_bounds_is_refused(tiers):
    with pytest.raises(ValidationError, match="highest tier"):
        Agent(slug="a", name="A", tier=tiers["sonnet"], min_tier="opus", max_tier="default").clean()
    with pytest.raises(ValidationError, match="from default to sonnet"):
        Agent(slug="a", name="A", tier=tiers["opus"], max_tier="sonnet").clean()
