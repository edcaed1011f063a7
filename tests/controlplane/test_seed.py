"""The seed: the strategy's tiers, models, 131 agents and the roles; done once, edits and deletions stay."""

from collections import Counter

import pytest
from django.contrib.auth.models import Group
from django.utils.text import slugify

from controlplane import seed
from controlplane.agents_seed import USE_CASES
from controlplane.models import Agent, LanguageModel, Tier
from optimizer.core.generation import TASK_SAMPLING
from optimizer.core.tiers import STRATEGY_TIERS


def test_there_are_131_agents_over_fifteen_use_cases():
    per_tier = Counter()
    for case in USE_CASES:
        per_tier[case.tier] += len(case.agents)
    assert per_tier == {"opus": 36, "sonnet": 59, "default": 36}
    assert Counter(case.tier for case in USE_CASES) == {"opus": 5, "sonnet": 5, "default": 5}


def test_agents_are_distinct_and_fully_described():
    agents = [agent for case in USE_CASES for agent in case.agents]
    assert len({slugify(agent.name) for agent in agents}) == 131
    assert len({agent.description for agent in agents}) == 131
    for agent in agents:
        assert agent.description.endswith(".")
        assert 0 <= agent.expertise_level <= 1
        assert agent.task_type == agent.task_type.lower()
    assert set(TASK_SAMPLING) <= {agent.task_type for agent in agents}


@pytest.mark.django_db
def test_seeding_twice_does_nothing_the_second_time(django_assert_num_queries):
    assert len(seed.seed()) == 6
    with django_assert_num_queries(1):
        assert seed.seed() == []
    assert Agent.objects.count() == 131
    assert Tier.objects.count() == 3


@pytest.mark.django_db
def test_seeded_rows_are_valid_and_say_what_the_strategy_says(seeded):
    for tier in STRATEGY_TIERS:
        row = Tier.objects.get(slug=tier.slug)
        assert (row.compression, row.target_s, len(row.use_cases)) == (tier.compression, tier.target_s, 5)
        serving = LanguageModel.objects.get(backend="ollama", tier=row, is_tier_default=True)
        assert serving.name == tier.model
    for row in [*Tier.objects.all(), *LanguageModel.objects.all(), *Agent.objects.all()]:
        row.full_clean()


@pytest.mark.django_db
def test_what_an_admin_edited_or_deleted_stays_so(seeded):
    Agent.objects.filter(slug="debugger").update(name="Bug Hunter")
    Agent.objects.filter(slug="title-writer").delete()
    seed.seed()
    assert Agent.objects.get(slug="debugger").name == "Bug Hunter"
    assert not Agent.objects.filter(slug="title-writer").exists()


@pytest.mark.django_db
def test_roles_grow_from_viewer_to_admin(seeded):
    may = {group.name: set(group.permissions.values_list("codename", flat=True)) for group in Group.objects.all()}
    assert may["viewer"] < may["operator"] < may["admin"]
    assert all(codename.startswith("view_") for codename in may["viewer"])
    assert "change_user" in may["admin"] - may["operator"]
