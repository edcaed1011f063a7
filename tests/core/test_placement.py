from hypothesis import given
from hypothesis import strategies as st

from optimizer.core.placement import Offer, choose, helps

SECONDS = st.floats(0, 1000, allow_nan=False)
OFFERS = st.lists(
    st.builds(
        Offer,
        node=st.just(""),
        wait_s=SECONDS,
        run_s=SECONDS,
        taken_s=SECONDS,
        resident=st.booleans(),
        requests=st.integers(0, 50),
        full=st.booleans(),
        lost=st.booleans(),
        drained=st.booleans(),
    ),
    min_size=1,
    max_size=6,
).map(lambda offers: [_named(offer, number) for number, offer in enumerate(offers)])


def _named(offer: Offer, number: int) -> Offer:
    offer.node = f"n{number}"
    return offer


@given(OFFERS)
def test_the_choice_is_one_of_the_offers_and_always_the_same(offers):
    best = choose(offers)
    assert best in offers
    assert choose(offers) is best


@given(OFFERS)
def test_a_lost_or_drained_node_is_never_chosen_while_another_works(offers):
    best = choose(offers)
    assert best is not None
    assert best.usable or not any(offer.usable for offer in offers)


@given(OFFERS)
def test_no_usable_node_with_room_would_end_it_sooner(offers):
    best = choose(offers)
    assert best is not None
    with_room = [offer for offer in offers if offer.usable and not offer.full]
    if with_room:
        assert best in with_room
        assert best.cost_s == min(offer.cost_s for offer in with_room)


@given(OFFERS, SECONDS)
def test_waiting_longer_makes_no_node_more_attractive(offers, more):
    best = choose(offers)
    assert best is not None
    others = [offer for offer in offers if offer is not best]
    for other in others:
        other.wait_s += more
    assert choose(offers) is best


def test_equal_costs_go_to_the_node_that_has_the_model_then_to_the_emptier_one_then_to_the_first():
    assert choose([]) is None
    loaded, empty = Offer("a", 1, 1, resident=True, requests=3), Offer("b", 1, 1)
    assert choose([empty, loaded]) is loaded
    busy = Offer("c", 1, 1, requests=1)
    assert choose([busy, empty]) is empty
    assert choose([Offer("d", 1, 1), empty]).node == "d"


def test_what_a_swap_takes_from_others_counts():
    swapping = Offer("a", wait_s=1, run_s=2, taken_s=5)
    queueing = Offer("b", wait_s=6, run_s=2, resident=True)
    assert choose([swapping, queueing]) is queueing
    assert choose([Offer("a", wait_s=1, run_s=2), queueing]).node == "a"


def test_an_idle_node_helps_only_where_it_pays():
    at_hand = Offer("idle", wait_s=0, run_s=1, resident=True)
    assert helps(at_hand, wait_s=1)
    assert not helps(at_hand, wait_s=0.01)
    to_load = Offer("idle", wait_s=4, run_s=1, taken_s=2)
    assert not helps(to_load, wait_s=11)
    assert helps(to_load, wait_s=13)
    assert not helps(Offer("idle", 0, 1, lost=True), 100)
    assert not helps(Offer("idle", 0, 1, drained=True), 100)
