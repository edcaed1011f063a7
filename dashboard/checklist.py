"""The strategy's optimisation checklist, each item with what is true of it now.

Rule: an item is done only if the evidence says so; where only a person can know (a review), a person says it and the
audit remembers. Must not know: how it is shown.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controlplane import reports
from controlplane.models import Agent
from optimizer.core.thresholds import Thresholds

WEEK_D = 7.0
MONTH_D = 30.0
ENOUGH = 10  # scored requests after which an agent counts as profiled


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the checklist. `link` is the name of a route of the dashboard."""

    text: str  # strategy.md, "Optimization Checklist"
    done: bool
    evidence: tuple[str, ...]
    link: str
    link_text: str

    @property
    def route(self) -> str:
        return f"dashboard:{self.link}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the running engine knows of it. `None` for `thresholds` while it starts."""

    thresholds: Thresholds | None
    finds_similar: bool  # an embedder is loaded
    entries: int  # answers held


def items(facts: Facts) -> list[Item]:
    """All seven, in the strategy's order."""
    return [make(facts) for make in _ITEMS]


def _profiled(facts: Facts) -> Item:
    figures = reports.figures_of_agents(reports.days_ago(WEEK_D))
    known = {agent.slug: agent for agent in Agent.objects.all()}
    active = {slug: row for slug, row in figures.items() if slug in known}
    profiled = [slug for slug, row in active.items() if row["scored"] >= ENOUGH]
    return Item(
        "Profile agent workloads to verify model assignments",
        bool(active) and len(profiled) == len(active),
        (
            f"{len(profiled)} of the {len(active)} agents that sent something this week have {ENOUGH} or more "
            f"requests with a measured complexity; there are {len(known)} agents.",
        ),
        "profiles",
        "Assigned tier against measured complexity",
    )


def _compressed(facts: Facts) -> Item:
    without = reports.agents_without(compress=False)
    count, before, after = reports.compression_figures()
    on = facts.thresholds is not None and facts.thresholds.compression
    saved = f"{before - after} of {before} prompt tokens saved over the latest {count} requests." if count else ""
    return Item(
        "Implement prompt compression for all agents",
        on and without == 0 and count > 0,
        (
            f"Compression is {'on' if on else 'off'}; {without} agents are left out.",
            saved or "No request has been compressed yet.",
        ),
        "thresholds",
        "Budgets and levels",
    )


def _cached(facts: Facts) -> Item:
    figures = reports.cache_figures(reports.days_ago(WEEK_D))
    similar = Agent.objects.filter(cache__in=("light", "strict")).count()
    on = facts.thresholds is not None and facts.thresholds.cache_enabled
    return Item(
        "Set up response caching with semantic matching",
        on and facts.finds_similar and similar > 0 and facts.entries > 0,
        (
            f"The cache is {'on' if on else 'off'} and holds {facts.entries} answers; similar questions are "
            f"{'found' if facts.finds_similar else 'not found: no embedder'}, for {similar} agents.",
            f"This week {figures['hits']} of {figures['asked']} answers came without a run "
            f"({figures['counts']['semantic']} by similarity).",
        ),
        "cache",
        "The cache",
    )


def _batched(facts: Facts) -> Item:
    limits = facts.thresholds
    on = limits is not None and limits.batch_window_ms > 0 and limits.batch_max > 1 and limits.coalesce
    joined = reports.cache_figures(reports.days_ago(WEEK_D))["counts"]["coalesced"]
    combining = Agent.objects.filter(combine=True).count()
    window = f"{limits.batch_window_ms:g} ms, at most {limits.batch_max}" if limits else "unknown"
    return Item(
        "Configure request batching for similar tasks",
        on,
        (
            f"The window is {window}; identical running requests are {'shared' if on else 'not all shared'}.",
            f"This week {joined} requests joined a running one; {combining} agents let their prompts be combined.",
        ),
        "thresholds",
        "The batching thresholds",
    )


def _adjusted(facts: Facts) -> Item:
    last = reports.last_parameter_change()
    recent = last is not None and last.at >= reports.days_ago(WEEK_D)
    said = f"Last changed {last.at:%Y-%m-%d} by {last.author}: {last.reason}" if last else "Nobody has changed one yet."
    return Item("Monitor and adjust parameters weekly", recent, (said,), "thresholds", "Thresholds and their history")


def _reviewed(facts: Facts) -> Item:
    last = reports.last_review()
    recent = last is not None and last.at >= reports.days_ago(WEEK_D)
    said = f"Last reviewed {last.at:%Y-%m-%d} by {last.actor}." if last else "Nobody has said so yet."
    return Item("Review model performance metrics", recent, (said, "The figures are below."), "checklist", "Figures")


def _updated(facts: Facts) -> Item:
    changes = reports.strategy_changes(reports.days_ago(MONTH_D))
    said = tuple(f"{entry.at:%Y-%m-%d} {entry.actor}: {entry.action} {entry.target}" for entry in changes)
    return Item(
        "Update optimization strategies based on data",
        bool(changes),
        said or ("No agent, tier or model was changed and no suggestion applied in the last 30 days.",),
        "agents",
        "Agents and their tiers",
    )


_ITEMS: tuple[Callable[[Facts], Any], ...] = (
    _profiled,
    _compressed,
    _cached,
    _batched,
    _adjusted,
    _reviewed,
    _updated,
)
