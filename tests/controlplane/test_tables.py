"""The in-memory tables: what the hot path looks up, and that every change makes them stale."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane import keys, queries, stores, thresholds
from controlplane.models import Agent, AgentKey, LanguageModel
from controlplane.tables import KeyEntry, Tables
from optimizer.core.errors import ConfigurationError
from optimizer.core.request import AgentProfile
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import STRATEGY_CATALOGUE

NOW = 1_790_000_000.0
SCOUT = AgentProfile(slug="scout", tier="default")


def tables(*entries: KeyEntry) -> Tables:
    return Tables(
        version=1,
        agents={"scout": SCOUT},
        keys={entry.prefix: entry for entry in entries},
        thresholds=Thresholds(),
        catalogue=STRATEGY_CATALOGUE,
        invalidated=frozenset(),
    )


def entry(prefix: str = "abc", secret: str = "s3cret", **others) -> KeyEntry:
    values = {"agent": "scout", "scopes": frozenset({"requests"}), "expires_at": None} | others
    return KeyEntry(prefix=prefix, digest=keys.digest(secret), **values)


def test_the_right_secret_gives_the_agent():
    assert tables(entry()).agent_for("ng_abc_s3cret", NOW) == SCOUT
    assert tables(entry()).agent_for(b"ng_abc_s3cret", NOW) == SCOUT
    assert tables(entry()).key_for("ng_abc_s3cret", NOW).scopes == {"requests"}


@pytest.mark.parametrize(
    "token", ["ng_abc_wrong", "ng_abd_s3cret", "ng_abc_", "abc_s3cret", "", "ng_abc_s3cret ", "ng__x"]
)
def test_anything_else_gives_nobody(token):
    assert tables(entry()).agent_for(token, NOW) is None


def test_the_stand_in_for_an_unknown_prefix_lets_nobody_in():
    assert tables().key_for("ng_zzz_", NOW) is None
    assert tables().key_for("ng_zzz_x", NOW) is None


def test_a_key_ends_at_its_expiry():
    table = tables(entry(expires_at=NOW))
    assert table.agent_for("ng_abc_s3cret", NOW - 1) == SCOUT
    assert table.agent_for("ng_abc_s3cret", NOW) is None


@given(st.one_of(st.text(), st.binary(), st.text(st.characters()).map(lambda text: "ng_abc_" + text)))
def test_no_token_raises(token):
    tables(entry()).agent_for(token, NOW)


@pytest.mark.django_db
def test_loading_gives_everything_the_hot_path_needs(agent):
    token = keys.issue(agent, expires_at=datetime.fromtimestamp(NOW, UTC))
    table = Tables.load("ollama")
    assert table.version == queries.state_version()
    assert len(table.agents) == 131
    assert table.agent_for(token, NOW - 1) == agent.profile()
    assert dict(table.catalogue.models) == dict(STRATEGY_CATALOGUE.models)
    assert dict(table.catalogue.tiers) == dict(STRATEGY_CATALOGUE.tiers)
    assert table.thresholds == Thresholds()


@pytest.mark.django_db
def test_every_change_the_engine_must_see_moves_the_version(agent):
    keys.issue(agent)
    changes = (
        lambda: keys.issue(agent),
        lambda: keys.revoke(AgentKey.objects.first(), actor="ann"),
        lambda: Agent.objects.filter(pk=agent.pk).update(paused=True),
        lambda: thresholds.change({"slots": 1}, "ann", "one"),
        lambda: stores.node_started("ollama"),
        lambda: LanguageModel.objects.filter(name="tinyllama").update(footprint_mb=700),
    )
    for change in changes:
        version = queries.state_version()
        change()
        assert queries.state_version() > version


@pytest.mark.django_db
def test_a_revoked_key_is_gone_after_loading(agent):
    token = keys.issue(agent)
    keys.revoke(AgentKey.objects.get(), actor="ann")
    assert Tables.load("ollama").agent_for(token, NOW) is None


@pytest.mark.django_db
def test_prompt_budgets_are_the_thresholds(seeded):
    thresholds.change({"budget_opus_tokens": 1500}, "ann", "shorter")
    assert Tables.load("ollama").catalogue.tiers["opus"].prompt_budget_tokens == 1500


@pytest.mark.django_db
def test_each_backend_has_models_of_its_own_and_the_simulated_card_ollamas(seeded):
    assert Tables.load("simulated").catalogue == Tables.load("ollama").catalogue
    assert not set(Tables.load("llamacpp").catalogue.models) & set(Tables.load("ollama").catalogue.models)


@pytest.mark.django_db
def test_a_tier_without_a_model_is_said_clearly(seeded):
    LanguageModel.objects.filter(name="tinyllama").update(is_tier_default=False)
    with pytest.raises(ConfigurationError, match="no model serves default on ollama"):
        Tables.load("ollama")
