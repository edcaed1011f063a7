"""Selection: the strategy's cuts before any outcome, what outcomes change, bounds, price and the reason."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.core import selection
from optimizer.core.errors import ModelNotFound
from optimizer.core.request import AgentProfile, Kind, Message, Request, Task
from optimizer.core.selection import (
    Outcomes,
    Selector,
    by_cuts,
    expected_success,
    pulled,
    strong_need,
    worthwhile,
)
from optimizer.core.thresholds import Thresholds, changed
from optimizer.core.tiers import DEFAULT, OPUS, SONNET, STRATEGY_CATALOGUE, TIER_SLUGS, Catalogue, rank

EASY = "What is the capital of France?"
MIDDLING = "Explain how to calculate the total cost of 3 apples and why it is the best price."
SLIGHT = "Why is the sky blue? Explain 1 reason."
HARD = "Prove by induction that the theorem holds for every n > 1, derive the bound and explain each step. " * 3
AGENT = AgentProfile(slug="agent", tier=SONNET)
THRESHOLDS = Thresholds()
TIERS = st.sampled_from(TIER_SLUGS)


def ask(text: str = EASY, system: str = "", **fields) -> Request:
    messages = (Message("system", system), Message("user", text)) if system else (Message("user", text),)
    return Request(id="r", agent="agent", kind=Kind.CHAT, messages=messages, **fields)


def select(request: Request, agent: AgentProfile = AGENT, selector: Selector | None = None, **options):
    options = {"wait_s": lambda _: 0.0, **options}
    catalogue = options.pop("catalogue", STRATEGY_CATALOGUE)
    thresholds = options.pop("thresholds", THRESHOLDS)
    return (selector or Selector()).select(request, agent, catalogue, thresholds, **options)


def taught(agent: str = "agent", **records: tuple[int, int]) -> Selector:
    selector = Selector()
    for tier, (good, total) in records.items():
        selector.outcomes.restore(agent, tier, good, total)
    return selector


# --- the rule before any outcome ------------------------------------------------------------------


@given(st.floats(0, 1), st.floats(0.01, 1), st.floats(0.01, 1))
def test_without_outcomes_the_tier_is_the_strategys_cuts(complexity, one, other):
    low, high = sorted((one, other))
    thresholds = changed(THRESHOLDS, {"cut_sonnet": low, "cut_opus": high})
    if min(abs(complexity - low), abs(complexity - high)) < 1e-6:
        return  # at a cut itself rounding decides
    expected = OPUS if complexity > high else SONNET if complexity > low else DEFAULT
    assert by_cuts(complexity, thresholds) == expected


@pytest.mark.parametrize(
    ("complexity", "tier"), [(0.0, DEFAULT), (0.4, DEFAULT), (0.41, SONNET), (0.8, SONNET), (0.81, OPUS), (1.0, OPUS)]
)
def test_the_shipped_cuts(complexity, tier):
    assert by_cuts(complexity, THRESHOLDS) == tier


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_harder_ask_needs_the_strong_tier_more(one, other):
    low, high = sorted((one, other))
    need = [strong_need({t: expected_success(t, c, THRESHOLDS) for t in TIER_SLUGS}) for c in (low, high)]
    assert need[0] <= need[1] + 1e-12


@given(st.floats(0, 1), TIERS)
def test_expectations_are_shares(complexity, tier):
    assert 0.0 <= expected_success(tier, complexity, THRESHOLDS) <= 1.0


@pytest.mark.parametrize(("text", "tier"), [(EASY, DEFAULT), (MIDDLING, SONNET), (HARD, OPUS)])
def test_the_asks_complexity_names_the_tier(text, tier):
    chosen = select(ask(text, task=Task(expertise_level=0.5)))
    assert chosen.tier == tier
    assert chosen.spec == STRATEGY_CATALOGUE.model_of(tier)


def test_the_system_prompt_is_never_scored():
    assert select(ask(EASY, system=HARD * 10)).complexity == select(ask(EASY)).complexity


def test_the_last_user_message_is_the_ask():
    chat = ask(EASY, system="s")
    longer = replace(chat, messages=(Message("user", HARD), Message("assistant", HARD), *chat.messages))
    assert select(longer).complexity == select(chat).complexity


def test_a_request_without_a_user_message_is_the_simplest():
    assert select(replace(ask(), messages=(Message("system", HARD),))).tier == DEFAULT


def test_hints_win():
    assert select(ask(EASY, task=Task(reasoning_steps=30, expected_lines=300))).tier == OPUS


def test_the_assigned_tier_moves_the_complexity():
    assert [pulled(0.5, tier) for tier in TIER_SLUGS] == pytest.approx([0.35, 0.5, 0.65])
    assert pulled(0.95, OPUS) == 1.0
    assert pulled(0.1, DEFAULT) == 0.0
    assert select(ask(SLIGHT)).tier == SONNET
    chosen = select(ask(SLIGHT), replace(AGENT, tier=DEFAULT))
    assert chosen.tier == DEFAULT
    assert "assigned default" in chosen.decision.reason


def test_131_cold_agents_use_all_tiers():
    selector, counts = Selector(), dict.fromkeys(TIER_SLUGS, 0)
    assigned = [OPUS] * 36 + [SONNET] * 59 + [DEFAULT] * 36
    for number, tier in enumerate(assigned * 4):
        spread = (number * 37) % 100  # any order that mixes easy and hard
        request = ask("word " * spread, task=Task(reasoning_steps=spread // 10, expertise_level=0.5))
        counts[select(request, AgentProfile(slug=f"a{number % 131}", tier=tier), selector).tier] += 1
    assert min(counts.values()) > 0.1 * sum(counts.values()), counts
    assert max(counts.values()) < 0.6 * sum(counts.values()), counts


# --- outcomes -------------------------------------------------------------------------------------


def test_a_tier_that_fails_an_agent_is_left_for_a_stronger_one():
    chosen = select(ask(EASY), selector=taught(default=(1, 10)))
    assert chosen.tier == SONNET
    assert "its 10 outcomes" in chosen.decision.reason
    assert "30% good expected" not in chosen.decision.reason


def test_a_weak_tier_that_works_is_kept_for_hard_asks():
    chosen = select(ask(HARD), selector=taught(default=(20, 20)))
    assert chosen.tier == DEFAULT
    assert "default by its 20 outcomes" in chosen.decision.reason


def test_where_nothing_works_the_cheap_tier_answers():
    assert select(ask(EASY), selector=taught(default=(0, 30), sonnet=(0, 30), opus=(0, 30))).tier == DEFAULT


def test_one_bad_answer_does_not_turn_an_agent_over():
    assert select(ask(EASY), selector=taught(default=(0, 1))).tier == DEFAULT


def test_other_agents_are_not_turned_over_by_one():
    assert select(ask(EASY), selector=taught("other", default=(0, 10_000))).tier == DEFAULT


def test_what_many_agents_learned_counts_for_a_new_one():
    selector = Selector()
    for number in range(30):
        selector.outcomes.restore(f"a{number}", DEFAULT, 2, 10)
    chosen = select(ask(EASY), selector=selector)
    assert chosen.tier == SONNET
    assert "all agents' outcomes" in chosen.decision.reason


def test_success_is_shrunk_towards_the_prior():
    outcomes = Outcomes()
    assert outcomes.success("a", DEFAULT, 0.7, 4.0) == 0.7
    outcomes.observe("a", DEFAULT, False)
    assert outcomes.success("a", DEFAULT, 0.75, 4.0) == pytest.approx(3 / 5)
    assert outcomes.count("a", DEFAULT) == 1
    assert outcomes.success("a", DEFAULT, 0.75, 0.0) == 0.0


def test_a_revised_outcome_replaces_the_earlier_one():
    outcomes = Outcomes()
    outcomes.revise("a", OPUS, True, before=None)
    outcomes.revise("a", OPUS, False, before=True)
    outcomes.revise("a", OPUS, False, before=False)
    assert outcomes.count("a", OPUS) == 1
    assert outcomes.success("a", OPUS, 0.5, 0.0) == 0.0
    outcomes.revise("forgotten", OPUS, True, before=False)
    assert outcomes.success("forgotten", OPUS, 0.5, 0.0) == 1.0


@given(st.lists(st.tuples(st.sampled_from("abc"), TIERS, st.booleans(), st.sampled_from([None, True, False]))))
def test_estimates_are_shares_whatever_is_observed(events):
    outcomes = Outcomes()
    for agent, tier, good, before in events:
        outcomes.revise(agent, tier, good, before)
    for complexity in (0.0, 0.5, 1.0):
        assert all(0.0 <= share <= 1.0 for share in outcomes.estimates("a", complexity, THRESHOLDS).values())


@given(TIERS, st.floats(0, 1), st.integers(0, 10), st.integers(0, 10))
def test_a_good_outcome_never_lowers_the_estimate_and_a_bad_one_never_raises_it(tier, complexity, good, bad):
    outcomes = Outcomes()
    for number in range(good + bad):
        outcomes.observe("a", tier, number < good)
    before = outcomes.estimates("a", complexity, THRESHOLDS)[tier]
    outcomes.observe("a", tier, True)
    after = outcomes.estimates("a", complexity, THRESHOLDS)[tier]
    outcomes.revise("a", tier, False, before=True)
    assert outcomes.estimates("a", complexity, THRESHOLDS)[tier] - 1e-9 <= before <= after + 1e-9


def test_old_outcomes_fade_so_that_a_tier_once_left_gets_another_chance():
    selector = taught(default=(2, 10))
    assert select(ask(EASY), selector=selector).tier == SONNET
    for _ in range(200):
        selector.outcomes.observe("agent", SONNET, True)
    assert select(ask(EASY), selector=selector).tier == DEFAULT
    assert selector.outcomes.count("agent", SONNET) <= 50


def test_a_long_history_taken_up_again_counts_like_a_recent_one():
    outcomes = Outcomes()
    outcomes.restore("a", DEFAULT, 400, 1000)
    assert outcomes.count("a", DEFAULT) == 50
    assert outcomes.success("a", DEFAULT, 1.0, 0.0) == pytest.approx(0.4)


def test_the_memory_of_outcomes_is_bounded(monkeypatch):
    monkeypatch.setattr(selection, "AGENTS", 2)
    outcomes = Outcomes()
    for agent in ("a", "b", "a", "c"):
        outcomes.observe(agent, DEFAULT, True)
    assert [outcomes.count(agent, DEFAULT) for agent in "abc"] == [2, 0, 1]


@given(st.fixed_dictionaries({tier: st.floats(0, 1) for tier in TIER_SLUGS}))
def test_the_worthwhile_tier_is_never_beaten_by_more_than_the_price_of_the_step(estimates):
    best = worthwhile(estimates)
    for tier in TIER_SLUGS:
        assert strong_need(estimates, best, tier) <= selection.WORTH * (rank(tier) - rank(best)) + 1e-6


# --- bounds ---------------------------------------------------------------------------------------


@given(
    text=st.sampled_from([EASY, MIDDLING, HARD]),
    assigned=TIERS,
    bounds=st.tuples(TIERS, TIERS),
    floor=st.sampled_from(["", *TIER_SLUGS]),
    waits=st.fixed_dictionaries({t: st.floats(0, 1e4) | st.just(float("inf")) for t in TIER_SLUGS}),
    tools=st.booleans(),
)
def test_bounds_always_hold(text, assigned, bounds, floor, waits, tools):
    lowest, highest = sorted(bounds, key=rank)
    agent = AgentProfile(slug="agent", tier=assigned, min_tier=lowest, max_tier=highest)
    wait_s = {STRATEGY_CATALOGUE.model_of(tier).name: wait for tier, wait in waits.items()}
    request = ask(text, tools=({"name": "t"},) if tools else ())
    chosen = select(request, agent, wait_s=wait_s.__getitem__, floor=floor)
    assert rank(lowest) <= rank(chosen.tier) <= rank(highest)
    if floor:
        assert rank(chosen.tier) >= min(rank(floor), rank(highest))
    assert chosen.decision.choice == chosen.spec.name


def test_bounds_are_named_in_the_reason():
    chosen = select(ask(HARD), replace(AGENT, max_tier=SONNET))
    assert chosen.tier == SONNET
    assert "agent may use default to sonnet" in chosen.decision.reason
    assert select(ask(EASY), replace(AGENT, min_tier=OPUS)).tier == OPUS


def test_a_conversation_is_never_downgraded():
    chosen = select(ask(EASY), floor=OPUS, wait_s=lambda name: 900.0 if "deepseek" in name else 0.0)
    assert chosen.tier == OPUS
    assert "no downgrade within a conversation" in chosen.decision.reason


def test_the_conversations_tier_yields_to_a_bound_lowered_since():
    assert select(ask(EASY), replace(AGENT, max_tier=SONNET), floor=OPUS).tier == SONNET


def without(*tiers: str) -> Catalogue:
    return Catalogue({t: v for t, v in STRATEGY_CATALOGUE.tiers.items() if t not in tiers}, STRATEGY_CATALOGUE.models)


def test_tiers_that_are_not_installed_are_skipped():
    chosen = select(ask(HARD), catalogue=without(OPUS))
    assert chosen.tier == SONNET
    assert "opus has no model installed" in chosen.decision.reason
    assert select(ask(MIDDLING), catalogue=without(SONNET)).tier == OPUS  # the stronger of two neighbours
    assert select(ask(EASY), replace(AGENT, max_tier=DEFAULT), catalogue=without(DEFAULT)).tier == SONNET
    with pytest.raises(ModelNotFound):
        select(ask(EASY), catalogue=without(*TIER_SLUGS))


def test_a_tier_that_cannot_do_what_is_asked_is_skipped():
    chosen = select(ask(EASY, tools=({"name": "look_up"},)))
    assert chosen.tier == SONNET  # tinyllama has no tools
    assert "tools needed" in chosen.decision.reason


def test_bounds_win_over_abilities():
    assert select(ask(EASY, tools=({"name": "t"},)), replace(AGENT, max_tier=DEFAULT)).tier == DEFAULT


# --- price ----------------------------------------------------------------------------------------

WAITS = {"tinyllama": 0.0, "qwen2.5-coder:7b": 20.0, "deepseek-r1:8b": 100.0}


def test_a_step_up_that_waits_too_long_is_not_taken():
    chosen = select(ask(HARD), wait_s=WAITS.__getitem__)
    assert chosen.tier == SONNET
    assert chosen.decision.reason.endswith(
        "qwen2.5-coder:7b, +20 s, not deepseek-r1:8b: +100 s is over the limit of 60 s"
    )


def test_only_the_extra_wait_counts():
    everywhere = {name: wait + 500.0 for name, wait in {**WAITS, "deepseek-r1:8b": 50.0}.items()}
    assert select(ask(HARD), wait_s=everywhere.__getitem__).tier == OPUS


def test_the_limit_is_a_threshold():
    patient = changed(THRESHOLDS, {"max_swap_wait_s": 100})
    assert select(ask(HARD), wait_s=WAITS.__getitem__, thresholds=patient).tier == OPUS


def test_waits_without_end_are_no_reason_to_fail():
    assert select(ask(HARD), wait_s=lambda _: float("inf")).tier == OPUS


# --- the reason -----------------------------------------------------------------------------------


def test_the_reason_is_one_sentence_with_everything_that_decided():
    chosen = select(ask(HARD), wait_s=lambda _: 2.0, resident=("deepseek-r1:8b",))
    assert chosen.decision.reason == f"{chosen.complexity:.2f}: multi-step proof, deepseek-r1:8b resident, +2 s"


def test_an_easy_ask_is_called_easy():
    assert select(ask(EASY)).decision.reason.endswith(": short question, tinyllama, no wait")


def test_the_values_hold_factors_and_counts():
    chosen = select(ask(HARD), selector=taught(opus=(3, 4)))
    values = chosen.decision.values
    assert values["outcomes"] == {"default": 0, "sonnet": 0, "opus": 4}
    assert values["complexity"] == round(chosen.complexity, 3)
    assert {"score", "reasoning", "context", "output", "expertise", "assigned", "expected_good"} <= values.keys()


def test_complexity_is_read_against_recent_traffic():
    selector = Selector()
    first = select(ask(MIDDLING), selector=selector).complexity
    for _ in range(200):
        select(ask(HARD), selector=selector)
    assert select(ask(MIDDLING), selector=selector).complexity < first
