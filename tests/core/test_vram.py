"""The ledger: declared until measured, reserved before a load, learned from failures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.core.events import Resident
from optimizer.core.tiers import STRATEGY_CATALOGUE
from optimizer.core.vram import Ledger, Place
from tests.core.machine import DEEPSEEK, QWEN, TINY


def ledger(usable_mb: float = 3686.4, *loaded: str) -> Ledger:
    result = Ledger(usable_mb, STRATEGY_CATALOGUE)
    for model in loaded:
        result.begin_load(model)
        result.load_succeeded(model, result.claim_mb(model), result.claim_mb(model))
    return result


def test_declared_sizes_decide_until_measured() -> None:
    card = ledger()
    assert card.fits([TINY, QWEN]) and not card.fits([TINY, DEEPSEEK])
    card.begin_load(DEEPSEEK)
    card.load_succeeded(DEEPSEEK, footprint_mb=3300, vram_mb=2800)
    assert card.claim_mb(DEEPSEEK) == 2800
    assert card.fits([TINY, DEEPSEEK])


def test_a_load_claims_its_memory_before_it_is_in_and_an_eviction_until_it_is_out() -> None:
    card = ledger()
    card.begin_load(QWEN)
    assert card.used_mb == 2500 and not card.is_loaded(QWEN)
    card.load_succeeded(QWEN, 2500, 2500)
    card.begin_eviction(QWEN)
    assert card.used_mb == 2500 and not card.is_loaded(QWEN)
    card.gone(QWEN)
    assert card.used_mb == 0


def test_a_model_larger_than_the_card_fits_alone_and_beside_nobody() -> None:
    card = ledger(2000)
    assert card.claim_mb(DEEPSEEK) == 2000
    assert card.fits([DEEPSEEK]) and not card.fits([DEEPSEEK, TINY])


def test_what_failed_to_load_together_is_remembered_until_it_is_seen_together() -> None:
    card = ledger(3686.4, TINY)
    card.begin_load(QWEN)
    card.load_failed(QWEN)
    assert not card.fits([TINY, QWEN]) and card.fits([QWEN])
    assert card.victims(QWEN, [TINY]) == (TINY,)
    card.observe([Resident(TINY, 800, 800), Resident(QWEN, 2500, 2500)])
    assert card.fits([TINY, QWEN])


def test_a_model_that_fails_alone_too_was_not_kept_out_by_its_neighbour() -> None:
    card = ledger(3686.4, TINY)
    card.begin_load(QWEN)
    card.load_failed(QWEN)
    card.gone(TINY)
    card.begin_load(QWEN)
    card.load_failed(QWEN)
    assert card.fits([TINY, QWEN])


def test_only_those_in_the_way_leave() -> None:
    card = ledger(4400, TINY, QWEN)
    assert card.victims(DEEPSEEK, [TINY, QWEN]) == (QWEN,)
    assert card.victims(DEEPSEEK, []) is None
    assert ledger(8000, TINY, QWEN).victims(DEEPSEEK, [TINY, QWEN]) == ()


def test_the_backends_account_replaces_ours_but_not_what_is_under_way() -> None:
    card = ledger(3686.4, TINY)
    card.begin_load(QWEN)
    card.observe([Resident("foreign", 500, 400)])
    assert card.places == {"foreign": Place.LOADED, QWEN: Place.LOADING}
    assert card.used_mb == 2900


def test_a_shrunk_budget_shows_as_overcommitted() -> None:
    card = ledger(3686.4, TINY, QWEN)
    card.redeclare(3000, STRATEGY_CATALOGUE)
    assert card.overcommitted


@given(usable=st.floats(500, 9000), loaded=st.lists(st.sampled_from([TINY, QWEN, DEEPSEEK]), unique=True, max_size=2))
def test_after_the_victims_have_left_the_newcomer_fits(usable, loaded) -> None:
    card = ledger(usable)
    for model in loaded:
        if card.fits([*card.places, model]):
            card.begin_load(model)
            card.load_succeeded(model, card.claim_mb(model), card.claim_mb(model))
    for newcomer in {TINY, QWEN, DEEPSEEK} - set(card.places):
        victims = card.victims(newcomer, list(card.places))
        assert victims is not None
        assert card.fits([*(m for m in card.places if m not in victims), newcomer])
        for spared in victims:
            assert not card.fits([*(m for m in card.places if m not in victims or m == spared), newcomer])


def test_unknown_models_claim_everything_until_measured() -> None:
    assert ledger(3000).claim_mb("foreign") == pytest.approx(3000)
