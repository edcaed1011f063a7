"""What can be served: declared models against installed ones."""

from optimizer.core.tiers import DEFAULT, STRATEGY_CATALOGUE
from optimizer.discovery import canonical, missing, served
from optimizer.ports import ModelInfo


def test_latest_is_the_same_model():
    assert canonical("tinyllama:latest") == "tinyllama"
    assert "tinyllama" in served(STRATEGY_CATALOGUE, [ModelInfo("tinyllama:latest")]).models


def test_a_declared_model_that_is_not_installed_is_not_served_and_is_named():
    catalogue = served(STRATEGY_CATALOGUE, [ModelInfo("tinyllama")])
    assert set(catalogue.models) == {"tinyllama"}
    assert set(catalogue.tiers) == {DEFAULT}
    assert missing(STRATEGY_CATALOGUE, catalogue) == ["deepseek-r1:8b", "qwen2.5-coder:7b"]


def test_an_undeclared_model_is_served_with_a_guess_by_size():
    catalogue = served(STRATEGY_CATALOGUE, [ModelInfo("llama3.2:3b", size_mb=2000.0, capabilities=("tools",))])
    spec = catalogue.models["llama3.2:3b"]
    assert spec.tier == "sonnet" and spec.footprint_mb == 2300 and spec.supports_tools


def test_capabilities_the_backend_reports_replace_the_declared_ones():
    info = ModelInfo("qwen2.5-coder:7b", capabilities=("completion",))
    assert not served(STRATEGY_CATALOGUE, [info]).models["qwen2.5-coder:7b"].supports_tools
