"""The VRAM ledger: what each model takes, and what fits beside what.

Rule: a model's claim is its declared footprint until the backend has measured it; from then on the
measurement (VRAM only: partial offload to the CPU is normal on 4 GB) counts. A load claims its memory
before it starts and an eviction frees it only when it is a fact. A model larger than the usable VRAM
claims all of it: it may run alone, spilling, never beside another.
Must not know: who waits, or what is worth evicting.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from optimizer.core.events import Resident
from optimizer.core.tiers import Catalogue


class Place(StrEnum):
    """Where a model stands that takes VRAM. One that is on disk only is in no place."""

    LOADING = "loading"
    LOADED = "loaded"
    EVICTING = "evicting"


@dataclass(frozen=True, slots=True)
class Footprint:
    """MB in all and in VRAM, as measured."""

    footprint_mb: float
    vram_mb: float


class Ledger:
    """Claims on the usable VRAM of one node."""

    def __init__(self, usable_mb: float, catalogue: Catalogue) -> None:
        self.usable_mb = usable_mb
        self.places: dict[str, Place] = {}  # in order of arrival in VRAM
        self.measured: dict[str, Footprint] = {}
        self.unfit: list[frozenset[str]] = []  # sets of models that failed to load together
        self._declared = {spec.name: float(spec.footprint_mb) for spec in catalogue.models.values()}

    def redeclare(self, usable_mb: float, catalogue: Catalogue) -> None:
        """Thresholds or catalogue changed; measurements stay."""
        self.usable_mb = usable_mb
        self._declared = {spec.name: float(spec.footprint_mb) for spec in catalogue.models.values()}

    def claim_mb(self, model: str) -> float:
        """What `model` takes of the usable VRAM, at most all of it. MB."""
        known = self.measured.get(model)
        return min(known.vram_mb if known else self._declared.get(model, self.usable_mb), self.usable_mb)

    @property
    def used_mb(self) -> float:
        """Claims of everything loaded, loading or not yet gone. MB."""
        return sum(self.claim_mb(model) for model in self.places)

    @property
    def overcommitted(self) -> bool:
        """More is claimed than usable: the budget shrank, or a model measured larger than declared."""
        return len(self.places) > 1 and self.used_mb > self.usable_mb

    def loaded(self) -> list[str]:
        """Models that can run, in order of arrival."""
        return [model for model, place in self.places.items() if place is Place.LOADED]

    def is_loaded(self, model: str) -> bool:
        return self.places.get(model) is Place.LOADED

    def fits(self, models: Sequence[str]) -> bool:
        """Whether these different models can be in VRAM together, by their claims and by experience."""
        if len(models) > 1 and sum(self.claim_mb(model) for model in models) > self.usable_mb:
            return False
        return not self.unfit or not any(unfit.issubset(models) for unfit in self.unfit)

    def victims(self, model: str, cheapest_first: Sequence[str]) -> tuple[str, ...] | None:
        """Which of `cheapest_first` must leave so that `model` fits; () = none, None = it cannot fit.

        Models not named stay. The cheapest leave first; whoever turns out not to be in the way is spared.
        """
        staying = [*(name for name in self.places if name != model), model]
        leaving: list[str] = []
        for name in cheapest_first:
            if self.fits(staying):
                break
            staying.remove(name)
            leaving.append(name)
        if not self.fits(staying):
            return None
        for name in reversed(leaving[:-1]):
            if self.fits([*staying, name]):
                leaving.remove(name)
                staying.append(name)
        return tuple(leaving)

    def begin_load(self, model: str) -> None:
        self.places[model] = Place.LOADING

    def begin_eviction(self, model: str) -> None:
        self.places[model] = Place.EVICTING

    def load_succeeded(self, model: str, footprint_mb: float, vram_mb: float) -> None:
        """It is in, and measured; what was held unfit beside it is forgotten."""
        self.places[model] = Place.LOADED
        self.measured[model] = Footprint(footprint_mb, vram_mb)
        self._proven()

    def load_failed(self, model: str) -> None:
        """It did not come in. Beside others, that is remembered; alone, co-residency was not to blame."""
        self.places.pop(model, None)
        if self.places:
            self.unfit.append(frozenset((model, *self.places)))
        else:
            self.unfit = [unfit for unfit in self.unfit if model not in unfit]

    def gone(self, model: str) -> None:
        self.places.pop(model, None)

    def clear(self) -> None:
        """The backend is lost: nothing is in VRAM."""
        self.places.clear()

    def observe(self, residents: Sequence[Resident]) -> None:
        """The backend's own account replaces ours; loads and evictions under way keep their place."""
        under_way = {model: place for model, place in self.places.items() if place is not Place.LOADED}
        self.places = {resident.model: Place.LOADED for resident in residents} | under_way
        for resident in residents:
            self.measured[resident.model] = Footprint(resident.footprint_mb, resident.vram_mb)
        self._proven()

    def _proven(self) -> None:
        together = set(self.loaded())
        self.unfit = [unfit for unfit in self.unfit if not unfit <= together]
