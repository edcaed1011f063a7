"""The strategy's guidelines as warnings: what breaks them is said, what was so before is not repeated."""

import pytest

from controlplane import guidelines
from controlplane.models import Agent, LanguageModel, Tier
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import STRATEGY_MODELS

MODELS = [LanguageModel.from_spec("ollama", spec, is_tier_default=True) for spec in STRATEGY_MODELS]
TINY, QWEN, DEEPSEEK = MODELS
TIERS = [
    Tier(slug="opus", name="Opus", use_cases=["Ethical reasoning"]),
    Tier(slug="default", name="Default", use_cases=["Monitoring tasks"]),
]


def test_the_strategys_own_base_temperature_leaves_its_guideline_for_the_small_model():
    (warning,) = guidelines.of_model(TINY, Thresholds())
    assert "temperature 0.56 is outside the guideline 0.3 to 0.5 for tinyllama" in warning
    assert guidelines.of_model(QWEN, Thresholds()) == []
    assert guidelines.of_model(DEEPSEEK, Thresholds()) == []


def test_a_change_is_blamed_only_for_what_it_breaks():
    assert guidelines.of_thresholds(Thresholds(), Thresholds(slots=1), MODELS) == []
    warnings = guidelines.of_thresholds(Thresholds(), Thresholds(temperature=1.0), MODELS)
    assert len(warnings) == 3  # every model is now outside its range
    assert guidelines.of_thresholds(Thresholds(temperature=1.0), Thresholds(), MODELS)[0].endswith("0.7 x 0.8.")


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (Thresholds(budget_default_tokens=800), "guideline keeps prompts under 500"),
        (Thresholds(compression=False), "compression is off"),
        (Thresholds(cache_enabled=False), "the cache is off"),
        (Thresholds(budget_opus_tokens=900), "smaller prompt budget"),
        (Thresholds(gpu_memory_mb=2048), "qwen2.5-coder:7b takes 2500 MB, more than the usable 1843 MB"),
        (Thresholds(budget_sonnet_tokens=5000), "window of qwen2.5-coder:7b (4096 tokens) is smaller"),
    ],
)
def test_thresholds_off_the_strategy_are_said(after, words):
    assert any(words in warning for warning in guidelines.of_thresholds(Thresholds(), after, MODELS))


def test_too_many_models_always_loaded_are_said():
    always = [LanguageModel.from_spec("ollama", spec) for spec in STRATEGY_MODELS]
    for model in always:
        model.residency = "always"
    (warning,) = guidelines.of_residents(always, Thresholds())
    assert "6500 MB, more than the usable 3686 MB" in warning


def test_agents_off_their_tier_are_said():
    def warnings(**fields) -> list[str]:
        return guidelines.of_agent(Agent(slug="a", **fields), TIERS)

    assert warnings(tier_id="opus", use_case="Ethical reasoning", expertise_level=0.9) == []
    assert "in the Opus tier" in warnings(tier_id="default", use_case="Ethical reasoning")[0]
    assert "Expertise 0.9" in warnings(tier_id="default", expertise_level=0.9)[0]
    assert "cache group has no effect" in warnings(tier_id="opus", cache="off", cache_group="g")[0]
    assert "wait for others" in warnings(tier_id="opus", combine=True, priority=Agent.Priority.INTERACTIVE)[0]


def test_temperatures_by_task_are_marked_where_they_leave_the_range():
    shown = guidelines.temperatures(QWEN, Thresholds())
    assert shown["code_generation"] == "0.3 (outside)"
    assert shown["other tasks"] == "0.7"
