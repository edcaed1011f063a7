"""What a decision quotes of a prompt is found and left out; its figures stay."""

from optimizer.core.caching import CacheEntry, Hit
from optimizer.core.guards import Verdict
from optimizer.quotes import without_quotes


def test_a_semantic_hit_keeps_its_figures_and_loses_its_words():
    entry = CacheEntry("k", "p", "a", "g", "m", "the SECRET", "text", "", "stop", 1, 1, None, 0.0)
    hit = Hit(entry, "semantic", 0.97, 4.0, Verdict(True, "same", "SECRET"))
    decision = {"stage": "cache", "choice": "semantic", "reason": hit.reason, "values": hit.values()}
    assert "SECRET" in str(decision)
    bare = without_quotes(decision)
    assert "SECRET" not in str(bare)
    assert bare["values"]["similarity"] == 0.97 and bare["reason"] == "a question 0.970 similar was answered 4 s ago"


def test_other_decisions_stay_as_they_are():
    decision = {"stage": "selection", "choice": "opus", "reason": "0.9; hard", "values": {"score": 0.9}}
    assert without_quotes(decision) == decision
