"""Model selection: the ask's complexity and the agent's own history choose a tier, within bounds and at a price.

Rule: every choice carries its reason in one sentence. The decision tree, numbered as in the code:
  1. complexity = percentile of the ask's score in recent traffic; it names a tier by the cuts 0.4 and 0.8. The
     agent's assigned tier moves the complexity by ASSIGNED_PULL, so that an opus agent's asks reach opus about twice as
     often as a sonnet agent's.
  2. outcomes: per (agent, tier) the share of good answers, shrunk towards what complexity lets expect. A tier is
     chosen when it promises WORTH more good answers per step up; without outcomes that is exactly the cuts.
  3. bounds: never below or above what the agent allows, never below the conversation's tier, and only tiers whose
     model is installed and can do what is asked (tools, images).
  4. price: a step up whose extra wait is over `max_swap_wait_s` is not taken (the reason says so).
Must not know: how waits are predicted, or what the model answers.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from optimizer.core.complexity import Factors, Traffic, factors
from optimizer.core.errors import ModelNotFound
from optimizer.core.request import AgentProfile, Decision, Request
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import DEFAULT, OPUS, SONNET, TIER_SLUGS, Catalogue, ModelSpec, rank

AGENTS = 10_000  # agents whose outcomes are kept, the least recent dropped first
KEEP = 0.98  # of an agent's earlier outcomes with every new one: the last 50 or so count, also of tiers it has left
WORTH = 0.2  # share of good answers that one step up must add: 1 in 5 more
BEST = 0.95  # share of good answers expected where the tier is strong enough; before any outcome
MIDDLING = 0.5  # the complexity at which all outcomes together are taken to have been seen
EVERYONE_PER_AGENT = 10  # outcomes of one (agent, tier) that count for everyone: no agent speaks for all
EVERYONE_PRIOR = 60.0  # outcomes that the cold expectation is worth against those of all agents together
ASSIGNED_PULL = 0.15  # complexity added per rank that the assigned tier is above sonnet: shares stay 40:40:20 in all


@dataclass(frozen=True, slots=True)
class Selection:
    """`complexity` is None where nothing was scored (a model or tier was named)."""

    spec: ModelSpec
    tier: str
    complexity: float | None
    decision: Decision


class Outcomes:
    """How often each tier's answers were good: for each agent, and for all agents together.

    Old outcomes fade, so that neither a bad day nor a tier once left is held against for ever.
    """

    def __init__(self) -> None:
        self._table: OrderedDict[str, dict[str, tuple[float, float]]] = OrderedDict()  # (good answers, answers)
        self._everyone: dict[str, tuple[float, float]] = {}

    def observe(self, agent: str, tier: str, good: bool) -> None:
        """Take in one judged answer; it makes all earlier ones of the agent count a little less."""
        for known, (goods, total) in self._table.get(agent, {}).items():
            self._set(agent, known, goods * KEEP, total * KEEP)
        goods, total = self._of(agent, tier)
        self._set(agent, tier, goods + good, total + 1.0)

    def restore(self, agent: str, tier: str, good: int, total: int) -> None:
        """Take up what was learned in an earlier life."""
        scale = min(1.0, 1.0 / (1.0 - KEEP) / total) if total else 0.0
        self._set(agent, tier, good * scale, total * scale)

    def revise(self, agent: str, tier: str, good: bool, before: bool | None) -> None:
        """Take an outcome in that replaces an earlier one of the same answer (None: there was none)."""
        if before is None:
            self.observe(agent, tier, good)
        elif before != good:
            goods, total = self._of(agent, tier)
            total = max(1.0, total)  # the earlier outcome may have been dropped with its agent
            self._set(agent, tier, min(total, max(0.0, goods + (1.0 if good else -1.0))), total)

    def count(self, agent: str, tier: str) -> int:
        """Judged answers that still count."""
        return round(self._of(agent, tier)[1])

    def success(self, agent: str, tier: str, prior: float, prior_weight: float) -> float:
        """Success rate shrunk towards `prior`, which counts as `prior_weight` outcomes; 0..1."""
        return _shrunk(self._of(agent, tier), prior, prior_weight)

    def estimates(self, agent: str, complexity: float, thresholds: Thresholds) -> dict[str, float]:
        """Tier -> estimated share of good answers to this agent's asks of this complexity, 0..1.

        Two steps of shrinking: all agents' outcomes move the expectation, the agent's own outcomes move it further.
        """
        found = {}
        for tier in TIER_SLUGS:
            middling = expected_success(tier, MIDDLING, thresholds)
            everyone = _shrunk(self._everyone.get(tier, (0.0, 0.0)), middling, EVERYONE_PRIOR)
            here = expected_success(tier, complexity, thresholds) + everyone - middling
            found[tier] = self.success(agent, tier, min(1.0, max(0.0, here)), thresholds.prior_weight)
        return found

    def _of(self, agent: str, tier: str) -> tuple[float, float]:
        return self._table.get(agent, {}).get(tier, (0.0, 0.0))

    def _set(self, agent: str, tier: str, goods: float, total: float) -> None:
        old, new = _speaks(self._of(agent, tier)), _speaks((goods, total))
        pooled = self._everyone.get(tier, (0.0, 0.0))
        self._everyone[tier] = (max(0.0, pooled[0] + new[0] - old[0]), max(0.0, pooled[1] + new[1] - old[1]))
        self._table.setdefault(agent, {})[tier] = (goods, total)
        self._table.move_to_end(agent)
        if len(self._table) > AGENTS:
            self._table.popitem(last=False)  # what it taught about everyone stays


def expected_success(tier: str, complexity: float, thresholds: Thresholds) -> float:
    """Share of good answers expected of a tier before any outcome, 0..1.

    Straight lines, WORTH apart where the cuts are: the weakest tier that is worth it is then the strategy's own rule
    (above 0.8 opus, above 0.4 sonnet, else default).
    """
    below_opus = WORTH * complexity / max(thresholds.cut_opus, 1e-9)
    below_sonnet = WORTH * complexity / max(thresholds.cut_sonnet, 1e-9)
    gap = {OPUS: 0.0, SONNET: below_opus, DEFAULT: below_opus + below_sonnet}[tier]
    return max(0.0, BEST - gap)


def strong_need(estimates: Mapping[str, float], weak: str = DEFAULT, strong: str = OPUS) -> float:
    """How much the strong tier is needed: the share of good answers it adds, -1..1. Routing is measured by it."""
    return estimates[strong] - estimates[weak]


def worthwhile(estimates: Mapping[str, float], among: Collection[str] = TIER_SLUGS) -> str:
    """The tier to choose: the most good answers, each step up costing WORTH of them; the weaker one of equals."""
    best = ""
    for tier in TIER_SLUGS:
        if tier not in among:
            continue
        if not best or strong_need(estimates, best, tier) > WORTH * (rank(tier) - rank(best)) + 1e-9:
            best = tier
    return best


def pulled(complexity: float, assigned: str) -> float:
    """Complexity as moved by the agent's assigned tier, 0..1."""
    return min(1.0, max(0.0, complexity + ASSIGNED_PULL * (rank(assigned) - rank(SONNET))))


class Selector:
    """Selection with its memory: recent traffic and outcomes."""

    def __init__(self) -> None:
        self.traffic = Traffic()
        self.outcomes = Outcomes()

    def complexity(self, scored: Factors, thresholds: Thresholds) -> float:
        """Percentile of one ask among recent ones, 0..1; the ask then belongs to them."""
        score = scored.score(thresholds)
        found = self.traffic.percentile(score)
        self.traffic.add(score)
        return found

    def select(
        self,
        request: Request,
        agent: AgentProfile,
        catalogue: Catalogue,
        thresholds: Thresholds,
        *,
        wait_s: Callable[[str], float],
        floor: str = "",
        resident: Collection[str] = (),
    ) -> Selection:
        """The tier and model for an `auto` request. Raises ModelNotFound when no tier has a model.

        `wait_s(model)` predicts the wait for a model's next start, seconds; `floor` is the conversation's tier so
        far, "" for none; `resident` names the models in memory (for the reason only).
        """
        # 1. complexity, as the agent's assigned tier moves it
        ask = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
        scored = factors(ask, request.task)
        complexity = self.complexity(scored, thresholds)
        moved = pulled(complexity, agent.tier)
        named, asked_for = by_cuts(moved, thresholds), by_cuts(complexity, thresholds)
        easy = asked_for == DEFAULT and scored.character.startswith("multi-step")
        reasons = [f"{complexity:.2f}: {'few steps' if easy else scored.character}"]
        if named != asked_for:
            reasons.append(f"assigned {agent.tier}")
        # 2. outcomes
        estimates = self.outcomes.estimates(agent.slug, moved, thresholds)
        tier = worthwhile(estimates)
        if tier != named:
            reasons.append(self._learned(agent.slug, tier, named, estimates))
        # 3. bounds
        highest = max(agent.max_tier, agent.min_tier, key=rank)
        if _clamp(tier, agent.min_tier, highest) != tier:
            tier = _clamp(tier, agent.min_tier, highest)
            reasons.append(f"{agent.slug} may use {agent.min_tier} to {highest}")
        lowest = _clamp(floor or agent.min_tier, agent.min_tier, highest)
        if rank(tier) < rank(lowest):
            tier = lowest
            reasons.append("no downgrade within a conversation")
        able, lacking = _able(request, catalogue, agent.min_tier, highest)
        if tier not in able:
            tier, wanted = _nearest(tier, able), tier
            reasons.append(f"{wanted} has no model installed" if wanted not in catalogue.tiers else lacking)
        # 4. price
        allowed = [slug for slug in able if rank(lowest) <= rank(slug) <= rank(tier)] or [tier]
        tier, price = _priced(allowed, catalogue, thresholds, wait_s, resident)
        spec = catalogue.model_of(tier)
        values = {
            "complexity": round(complexity, 3),
            "score": round(scored.score(thresholds), 3),
            "reasoning": round(scored.reasoning, 3),
            "context": round(scored.context, 3),
            "output": round(scored.output, 3),
            "expertise": round(scored.expertise, 3),
            "assigned": agent.tier,
            "expected_good": {slug: round(share, 3) for slug, share in estimates.items()},
            "outcomes": {slug: self.outcomes.count(agent.slug, slug) for slug in TIER_SLUGS},
        }
        decision = Decision("selection", spec.name, ", ".join([*reasons, price]), values)
        return Selection(spec, tier, complexity, decision)

    def _learned(self, agent: str, tier: str, instead_of: str, estimates: Mapping[str, float]) -> str:
        own = sum(self.outcomes.count(agent, slug) for slug in TIER_SLUGS)
        whose = f"its {own} outcome{'s' * (own != 1)}" if own else "all agents' outcomes"
        return f"{tier} by {whose} ({estimates[tier]:.0%} good expected, {instead_of} {estimates[instead_of]:.0%})"


def by_cuts(complexity: float, thresholds: Thresholds) -> str:
    """The strategy's rule: above 0.8 opus, above 0.4 sonnet, else default."""
    return worthwhile({tier: expected_success(tier, complexity, thresholds) for tier in TIER_SLUGS})


def _shrunk(seen: tuple[float, float], prior: float, prior_weight: float) -> float:
    goods, total = seen
    weight = total + prior_weight
    return (goods + prior_weight * prior) / weight if weight else prior


def _speaks(seen: tuple[float, float]) -> tuple[float, float]:
    """An agent's part in everyone's outcomes: its own, counted as at most EVERYONE_PER_AGENT."""
    goods, total = seen
    scale = min(1.0, EVERYONE_PER_AGENT / total) if total else 0.0
    return goods * scale, total * scale


def _clamp(tier: str, lowest: str, highest: str) -> str:
    return TIER_SLUGS[min(max(rank(tier), rank(lowest)), rank(highest))]


def _able(request: Request, catalogue: Catalogue, lowest: str, highest: str) -> tuple[list[str], str]:
    """Served tiers within the bounds whose model can do what is asked, weakest first; and what is asked, in words.

    Where none can, those within the bounds (whoever answers then says so); where none is served there, all served
    ones. Raises ModelNotFound when there are none at all.
    """
    served = [slug for slug in TIER_SLUGS if slug in catalogue.tiers]
    if not served:
        raise ModelNotFound("auto")
    within = [slug for slug in served if rank(lowest) <= rank(slug) <= rank(highest)] or served
    tools, images = bool(request.tools), any(m.images for m in request.messages)
    able = []
    for slug in within:
        spec = catalogue.model_of(slug)
        if (spec.supports_tools or not tools) and (spec.supports_images or not images):
            able.append(slug)
    needed = " and ".join(name for name, asked in (("tools", tools), ("images", images)) if asked)
    return able or within, f"{needed} needed"


def _nearest(tier: str, able: Collection[str]) -> str:
    """The closest of the tiers, the stronger one of two."""
    return min(able, key=lambda slug: (abs(rank(slug) - rank(tier)), -rank(slug)))


def _priced(
    allowed: list[str],
    catalogue: Catalogue,
    thresholds: Thresholds,
    wait_s: Callable[[str], float],
    resident: Collection[str],
) -> tuple[str, str]:
    """The strongest of the allowed tiers (weakest first) that waits at most `max_swap_wait_s` longer than a weaker
    one, and a reason."""
    names = [catalogue.model_of(tier).name for tier in allowed]
    waits = [wait_s(name) for name in names]
    extras = [wait - min(waits) if wait > min(waits) else 0.0 for wait in waits]  # infinite waits may be equal
    chosen = max(i for i, extra in enumerate(extras) if extra <= thresholds.max_swap_wait_s)
    name, wait = names[chosen], waits[chosen]
    price = f"{name} resident" if name in resident else name
    price += f", {_plus(wait)}" if wait >= 0.05 else ", no wait"
    if chosen < len(allowed) - 1:
        price += f", not {names[-1]}: {_plus(extras[-1])} is over the limit of {thresholds.max_swap_wait_s:g} s"
    return allowed[chosen], price


def _plus(seconds: float) -> str:
    return f"+{seconds:.0f} s" if seconds >= 1 else f"+{seconds:.1f} s"
