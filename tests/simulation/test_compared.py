"""Two settings side by side: the figures agree with each other and with the verdict."""

import pytest

from optimizer.core.errors import ConfigurationError
from optimizer.core.thresholds import ThresholdError, Thresholds
from optimizer.core.tiers import STRATEGY_CATALOGUE
from optimizer.simulation import compared
from optimizer.simulation.replay import parts_of
from optimizer.simulation.workload import Arrival

MODELS = ("tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b")
TRAFFIC = [Arrival(n * 20.0, f"a{n % 7}", MODELS[n % 3], 200, 100 + n % 50, key=f"k{n % 9}") for n in range(180)]


def test_totals_tiers_pieces_curves_and_verdict_tell_one_story():
    steps: list[None] = []
    parts = parts_of(TRAFFIC)
    change = {"cache_ttl_s": "60"}
    found = compared.compare(parts, Thresholds(), change, STRATEGY_CATALOGUE, lambda: steps.append(None))
    data = compared.data(found, STRATEGY_CATALOGUE)
    assert len(steps) == 2 * len(parts) == 16 and data["change"] == {"cache_ttl_s": 60.0}
    old, new = data["totals"]["current"], data["totals"]["changed"]
    assert old["requests"] == new["requests"] == 180 and new["cache_hits"] < old["cache_hits"]
    assert data["effect"]["ratio"] == pytest.approx(new["lateness"] / old["lateness"]) and data["effect"]["ratio"] > 1
    assert [tier["tier"] for tier in data["tiers"]] == ["opus", "sonnet", "default"]
    for side, total in (("current", old), ("changed", new)):
        tiers = [tier[side] for tier in data["tiers"]]
        assert sum(tier["requests"] for tier in tiers) == 180
        on_time = sum(tier["requests"] * tier["within_target"] for tier in tiers)
        assert on_time / 180 == pytest.approx(total["within_target"])
        assert sum(piece[side]["swaps"] for piece in data["pieces"]) == total["swaps"]
        curve = data["curves"][side]
        assert curve["s"] == sorted(curve["s"]) and 0.9 < curve["share"][-1] <= 1.0 and len(curve["s"]) <= 240


def test_no_change_makes_no_difference_and_says_so():
    found = compared.compare(parts_of(TRAFFIC), Thresholds(), {"stay": 15}, STRATEGY_CATALOGUE)
    assert "no difference" in compared.sentence(found.verdict) and not found.verdict.accepted


def test_what_cannot_be_replayed_is_said():
    assert compared.cannot_show({"stay": 1, "temperature": 1, "top_p": 1}) == ["temperature", "top_p"]
    with pytest.raises(ThresholdError, match="stay"):
        compared.compare(parts_of(TRAFFIC), Thresholds(), {"stay": "often"}, STRATEGY_CATALOGUE)
    with pytest.raises(ConfigurationError, match="cannot fit"):
        compared.compare(parts_of(TRAFFIC), Thresholds(), {"gpu_memory_mb": 900}, STRATEGY_CATALOGUE)
