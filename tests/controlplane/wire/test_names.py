"""Model names as clients write them."""

import pytest

from controlplane.wire.names import aliases, resolve, shown, tagged
from optimizer.core.errors import ModelNotFound
from optimizer.core.tiers import STRATEGY_CATALOGUE, STRATEGY_MODELS, STRATEGY_TIERS, catalogue

SMALL = catalogue(STRATEGY_TIERS[:1], STRATEGY_MODELS[:1])


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("tinyllama", "tinyllama"),
        ("tinyllama:latest", "tinyllama"),
        ("qwen2.5-coder:7b", "qwen2.5-coder:7b"),
        ("auto:latest", "auto"),
        ("opus:latest", "opus"),
    ],
)
def test_latest_is_forgiven(asked, wanted):
    assert resolve(asked, STRATEGY_CATALOGUE) == wanted


@pytest.mark.parametrize("asked", ["qwen2.5-coder", "qwen2.5-coder:latest", "TINYLLAMA", "tinyllama:1b", "", ":latest"])
def test_no_name_is_replaced_by_another_models(asked):
    with pytest.raises(ModelNotFound):
        resolve(asked, STRATEGY_CATALOGUE)


def test_a_tier_without_a_served_model_is_no_alias():
    assert aliases(SMALL) == ("auto", "default")
    with pytest.raises(ModelNotFound):
        resolve("opus", SMALL)


def test_the_answer_names_what_ran_in_the_clients_spelling():
    assert shown("tinyllama:latest", "tinyllama") == "tinyllama:latest"
    assert shown("auto", "tinyllama") == "tinyllama"
    assert (tagged("tinyllama"), tagged("qwen2.5-coder:7b")) == ("tinyllama:latest", "qwen2.5-coder:7b")
