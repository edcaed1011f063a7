"""Which node a request goes to, when there are several.

Rule: the node where it is predicted to end first, with what it takes from others counted in:

    cost = wait + run + taken

`wait` is the predicted time to its start there: the queue ahead, loads and swaps included, as measured on that node.
`run` is its own predicted time at that node's measured speed. `taken` is the price of a swap to others: the time it
takes to bring back what would be pushed out for it. A node that is lost or drained is not chosen while another works,
nor is one whose queue is full while another's is not. Equal costs go to a node that has the model, then to the one
with fewer requests, then to the first.
Must not know: how waits are predicted, or what a node is.
"""

from collections.abc import Iterable
from dataclasses import dataclass

HELP_FACTOR = 2.0  # an idle node takes a request over where it saves this many times what bringing its model in costs
HELP_LEAST_S = 0.05  # and at least this much of its wait


@dataclass(slots=True)  # not frozen: built anew for every decision
class Offer:
    """What one node would do with a request; never changed. Seconds."""

    node: str
    wait_s: float
    run_s: float
    taken_s: float = 0.0
    resident: bool = False
    requests: int = 0  # waiting and running there
    full: bool = False  # its queue takes no more
    lost: bool = False
    drained: bool = False

    @property
    def cost_s(self) -> float:
        return self.wait_s + self.run_s + self.taken_s

    @property
    def usable(self) -> bool:
        return not self.lost and not self.drained


def choose(offers: Iterable[Offer]) -> Offer | None:
    """The best of `offers`, given in the order of the nodes; None of none.

    Where no node is usable, one that is only lost comes before a drained one: it comes back by itself.
    """
    best: Offer | None = None
    best_key: tuple[bool, bool, bool, float, bool, int] | None = None
    for offer in offers:
        key = (offer.drained, offer.lost, offer.full, offer.cost_s, not offer.resident, offer.requests)
        if best_key is None or key < best_key:
            best, best_key = offer, key
    return best


def helps(idle: Offer, wait_s: float) -> bool:
    """Whether an idle node should take over a request that would wait `wait_s` where it is."""
    if not idle.usable or idle.full:
        return False
    saved_s = wait_s - idle.wait_s - idle.taken_s
    return saved_s > max(HELP_LEAST_S, (HELP_FACTOR - 1.0) * (idle.wait_s + idle.taken_s))
