"""The hardware advisor: only what makes sense is asked, the answers are what a replay says, and best first."""

from dataclasses import replace

import pytest

from optimizer.core.thresholds import Thresholds, changed
from optimizer.core.tiers import STRATEGY_CATALOGUE, Catalogue
from optimizer.simulation.advice import Answer, advise, built_in
from optimizer.simulation.hardware import USUAL_CPU, what_ifs
from optimizer.simulation.replay import replay
from optimizer.simulation.workload import Arrival

TINY, QWEN, DEEPSEEK = "tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b"
MODELS = list(STRATEGY_CATALOGUE.models.values())


@pytest.fixture(scope="module")
def parts() -> list[list[Arrival]]:
    return built_in(Thresholds(), STRATEGY_CATALOGUE, piece_s=900.0)


@pytest.fixture(scope="module")
def answers(parts) -> list[Answer]:
    seen: list[tuple[int, int]] = []
    found = advise(parts, Thresholds(), STRATEGY_CATALOGUE, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n + 1, len(seen)) for n in range(len(seen))]
    return found


def claims(thresholds: Thresholds = Thresholds(), used=MODELS) -> list[str]:
    return [idea.claim for idea in what_ifs(used, thresholds, STRATEGY_CATALOGUE, USUAL_CPU)]


def test_the_issues_own_example_is_among_the_answers(answers):
    [answer] = [a for a in answers if a.claim.startswith("a deepseek")]
    assert answer.claim == "a deepseek-r1:8b quantisation of at most 2880 MB would fit beside tinyllama"
    before, after = answer.models[TINY]
    assert after.within_target > before.within_target + 0.1 and answer.verdict.accepted
    assert answer.sentence.startswith(f"{answer.claim}: tinyllama within target {before.within_target:.0%} → ")


def test_answers_cover_every_kind_best_first_with_one_for_another_node(answers):
    kinds = [answer.kind for answer in answers]
    assert set(kinds) == {"vram", "slots", "ram", "quantisation", "cpu", "node"} and kinds.count("node") == 1
    ratios = [answer.verdict.ratio for answer in answers]
    assert ratios == sorted(ratios) and kinds[0] == "node"
    everything = next(a for a in answers if a.claim == "a card of 8192 MB instead of 4096")
    assert everything.after.swaps == 0 and everything.before.swaps > 0
    assert everything.before.within_target < everything.after.within_target < 1.0


def test_every_answer_counts_the_same_requests(answers, parts):
    count = sum(map(len, parts))
    for answer in answers:
        assert answer.before.requests == answer.after.requests == count, answer.claim
        assert sum(after.requests for _, after in answer.models.values()) == count, answer.claim


def test_an_answer_is_what_a_replay_on_that_hardware_says(answers, parts):
    larger = changed(Thresholds(), {"gpu_memory_mb": 8192})
    replayed = [r.figures for r in replay(parts, larger, STRATEGY_CATALOGUE)]
    within = sum(f.within_target * f.requests for f in replayed) / sum(f.requests for f in replayed)
    answer = next(a for a in answers if a.claim == "a card of 8192 MB instead of 4096")
    assert answer.after.within_target == pytest.approx(within)


def test_a_slow_processor_is_not_recommended_and_a_fast_one_is(parts):
    fast = replace(USUAL_CPU, prefill_share=1.0, decode_share=1.0)

    def with_deepseek_on(cpu) -> Answer:
        found = advise(parts[:1], Thresholds(), STRATEGY_CATALOGUE, cpu)
        return next(a for a in found if a.claim == f"{DEEPSEEK} on the CPU")

    assert with_deepseek_on(USUAL_CPU).verdict.ratio > 1.0 > with_deepseek_on(fast).verdict.ratio


def test_cards_are_offered_up_to_the_first_that_holds_everything():
    cards = [claim for claim in claims() if "card" in claim]
    assert cards == ["a card of 6144 MB instead of 4096", "a card of 8192 MB instead of 4096"]
    assert not any("quantisation" in claim for claim in claims(changed(Thresholds(), {"gpu_memory_mb": 8192})))


def test_one_model_alone_is_neither_split_nor_moved_to_the_processor():
    alone = claims(used=MODELS[:1])
    assert not any("CPU" in claim or "quantisation" in claim for claim in alone)
    assert [claim for claim in alone if "node" in claim] == ["another node for half of the agents"]


def test_the_most_slots_are_not_exceeded():
    assert [claim for claim in claims(changed(Thresholds(), {"slots": 16})) if "slots" in claim] == []
    assert [claim for claim in claims(changed(Thresholds(), {"slots": 10})) if "slots" in claim] == [
        "11 slots instead of 10",
        "16 slots instead of 10",
    ]


def test_a_pair_of_models_is_divided_in_one_way_only():
    two = Catalogue(STRATEGY_CATALOGUE.tiers, {name: STRATEGY_CATALOGUE.models[name] for name in (QWEN, DEEPSEEK)})
    nodes = [i.claim for i in what_ifs(list(two.models.values()), Thresholds(), two, USUAL_CPU) if i.kind == "node"]
    assert nodes == [f"another node for {QWEN}", "another node for half of the agents"]
