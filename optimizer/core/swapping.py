"""Carrying models in and out: the swap under way, and the next one if one is due.

Rule: drain, then evict, then load; each step begins only when the one before is a fact, and one load at a
time. Whether a swap is due is for policy.py to say. Only scheduler.py calls this.
Must not know: slots, requests one by one, or how commands are carried out.
"""

from optimizer.core import policy
from optimizer.core.commands import Command, EvictModel, LoadModel
from optimizer.core.policy import Rule
from optimizer.core.state import State, Swap
from optimizer.core.tiers import Residency

NEVER = float("inf")


class Swapping:
    """Decides loads and evictions."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._commands: list[Command] = []
        self._wake_at = NEVER

    def decide(self, commands: list[Command], now: float) -> float:
        """Add what is to be done now to `commands`; returns when to look again at the latest."""
        self._commands = commands
        self._wake_at = NEVER
        self._go_on(now)
        if not self._state.swap and not self._state.loading:
            self._plan(now)
        return self._wake_at

    def _go_on(self, now: float) -> None:
        """Drain, then evict, then load: each step only when the one before is a fact."""
        st, swap = self._state, self._state.swap
        if not swap:
            return
        if not swap.evicting:
            if swap.target and swap.rule in (Rule.IDLE, Rule.STAYED, Rule.URGENT) and not st.model(swap.target).queue:
                st.swap = None  # whoever it was for has left
            elif not any(st.model(name).running for name in swap.leaving):
                self._evict(swap, now)
        elif not any(name in st.ledger.places for name in swap.leaving):
            st.swap = None
            target = swap.target
            wanted = target and target not in st.ledger.places and self._has_use(target)
            if target and wanted and st.ledger.fits([*st.ledger.places, target]):
                self._load(target, now)

    def _has_use(self, model: str) -> bool:
        st = self._state
        return bool(st.model(model).queue) or model in st.wanted or st.residency(model) is not Residency.ON_DEMAND

    def _evict(self, swap: Swap, now: float) -> None:
        st = self._state
        swap.evicting = True
        for name in swap.leaving:
            if not st.ledger.is_loaded(name):
                continue
            st.ledger.begin_eviction(name)
            st.since[name] = now
            self._commands.append(EvictModel(name))
        if swap.target:
            st.counters.swaps += 1
            for name, model in st.models.items():
                model.passed += bool(model.queue) and name != swap.target and name not in st.ledger.places

    def _load(self, model: str, now: float) -> None:
        st = self._state
        st.ledger.begin_load(model)
        st.loading = model
        st.since[model] = now
        self._commands.append(LoadModel(model))

    def _plan(self, now: float) -> None:
        """The next change of models, if one is due: operators first, then demand, then residents."""
        if self._for_operator(now) or self._for_demand(now):
            return
        if self._state.drained:
            self._empty(now)
        else:
            self._for_residents(now)

    def _empty(self, now: float) -> None:
        """A drained node that nobody needs any more gives its memory back."""
        st = self._state
        loaded = tuple(st.ledger.loaded())
        if loaded and not st.entries and not st.running:
            self._begin_swap(None, loaded, Rule.OPERATOR, now)

    def _for_operator(self, now: float) -> bool:
        st = self._state
        for name in list(st.unwanted):
            del st.unwanted[name]
            if st.ledger.is_loaded(name):
                return self._begin_swap(None, (name,), Rule.OPERATOR, now)
        for name in list(st.wanted):
            leaving = st.ledger.victims(name, policy.by_worth(st.evictable(now)))
            if name in st.ledger.places or name not in st.catalogue.models or leaving is None:
                del st.wanted[name]
            elif st.model(name).retry_at <= now:
                return self._bring_in(name, leaving, Rule.OPERATOR, now)
        if st.ledger.overcommitted:
            surplus = policy.by_worth(st.evictable(now)) or st.ledger.loaded()
            return self._begin_swap(None, tuple(surplus[:1]), Rule.OVERCOMMITTED, now)
        return False

    def _for_demand(self, now: float) -> bool:
        """Bring in what is waited for. True when something was done, or is about to be."""
        st = self._state
        candidates = []
        for name, model in st.models.items():
            if model.queue and name not in st.ledger.places:
                if model.retry_at > now:
                    self._wake(model.retry_at)
                else:
                    candidates.append(st.standing(name, now))
        if not candidates:
            return False
        loaded = st.evictable(now)
        cheapest_first = policy.by_worth(loaded)
        imminent = False
        for newcomer in policy.by_urgency(candidates, len(st.models)):
            leaving = st.ledger.victims(newcomer.model, cheapest_first)
            if leaving is None:
                continue  # pinned models leave no room
            pushed_out = [s for s in loaded if s.model in leaving]
            beside = st.beside(newcomer, leaving, candidates)
            verdict = policy.verdict(newcomer, pushed_out, st.thresholds, beside)
            if not leaving or verdict.swap:
                return self._bring_in(newcomer.model, leaving, verdict.rule, now)
            if verdict.due_in_s:
                self._wake(now + verdict.due_in_s)
            imminent |= verdict.rule is not Rule.STAY or verdict.due_in_s < self._longest_prefetch_s()
            if policy.entitled(newcomer, len(st.models)):
                return True  # nobody comes in before it
        return imminent

    def _longest_prefetch_s(self) -> float:
        st = self._state
        absent = (m for m in st.catalogue.models if m not in st.ledger.places)
        return max((st.estimates.load_s(m) for m in absent if st.residency(m) is not Residency.ON_DEMAND), default=0.0)

    def _for_residents(self, now: float) -> None:
        """Bring back always-resident models, then those that should be in if they fit."""
        st = self._state
        for residency in (Residency.ALWAYS, Residency.IF_FITS):
            for name in st.catalogue.models:
                model = st.model(name)
                if st.residency(name) is not residency or name in st.ledger.places or name in st.put_out:
                    continue
                if model.retry_at > now:
                    self._wake(model.retry_at)
                elif st.ledger.fits([*st.ledger.places, name]):
                    return self._load(name, now)
                elif residency is Residency.ALWAYS and self._restore(name, now):
                    return None
        return None

    def _restore(self, name: str, now: float) -> bool:
        """An always-resident model pushes out on-demand ones that nobody has used for `stay` swap times."""
        st = self._state
        guests = [s for s in st.evictable(now) if s.residency is Residency.ON_DEMAND and not s.busy]
        leaving = st.ledger.victims(name, policy.by_worth(guests))
        if not leaving:
            return False
        cost_s = sum(s.load_s + s.evict_s for s in guests if s.model in leaving)
        due = max(st.model(guest).idle_since for guest in leaving) + st.thresholds.stay * cost_s
        if due > now:
            self._wake(due)
            return False
        return self._begin_swap(name, leaving, Rule.RESIDENT, now)

    def _bring_in(self, model: str, leaving: tuple[str, ...], rule: Rule, now: float) -> bool:
        if leaving:
            return self._begin_swap(model, leaving, rule, now)
        self._load(model, now)
        return True

    def _begin_swap(self, target: str | None, leaving: tuple[str, ...], rule: Rule, now: float) -> bool:
        st = self._state
        st.swap = Swap(target, leaving, rule, now, drained_by=st.busy_until(leaving, now))
        self._go_on(now)
        return True

    def _wake(self, at: float) -> None:
        self._wake_at = min(self._wake_at, at)
