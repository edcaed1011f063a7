"""Generation parameters against the strategy's table."""

import pytest

from optimizer.core.generation import guideline_remark, parameters
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import STRATEGY_CATALOGUE

TINY = STRATEGY_CATALOGUE.models["tinyllama"]
QWEN = STRATEGY_CATALOGUE.models["qwen2.5-coder:7b"]
DEEPSEEK = STRATEGY_CATALOGUE.models["deepseek-r1:8b"]


@pytest.mark.parametrize(
    ("task_type", "spec", "temperature", "top_p", "length"),
    [
        ("", TINY, 0.56, 0.9, 512),
        ("code_generation", QWEN, 0.3, 0.95, 2048),
        ("creative_writing", DEEPSEEK, 0.99, 0.95, 4096),
        ("analysis", TINY, 0.4, 0.9, 512),
    ],
)
def test_defaults_follow_the_strategy(task_type, spec, temperature, top_p, length):
    options = parameters(task_type, spec, Thresholds(), {}, room_tokens=100_000).options
    assert options == {"temperature": temperature, "top_p": top_p, "repeat_penalty": 1.1, "num_predict": length}


def test_an_explicit_value_wins_and_is_named_in_the_reason():
    chosen = parameters("analysis", QWEN, Thresholds(), {"temperature": 0.0, "seed": 7, "top_p": None}, 1000)
    assert chosen.options["temperature"] == 0.0
    assert chosen.options["seed"] == 7
    assert chosen.options["top_p"] == 0.9
    assert "temperature as the client asked" in chosen.decision.reason
    assert "outside the guideline" in chosen.decision.reason


def test_our_default_length_shrinks_to_the_room_but_the_clients_does_not():
    assert parameters("", QWEN, Thresholds(), {}, room_tokens=90).max_tokens == 90
    assert parameters("", QWEN, Thresholds(), {"num_predict": 300}, room_tokens=90).max_tokens == 300


def test_no_limit_becomes_the_rest_of_the_window():
    assert parameters("", QWEN, Thresholds(), {"num_predict": -1}, room_tokens=700).max_tokens == 700


def test_the_tuner_scales_default_lengths():
    assert parameters("", QWEN, Thresholds(max_tokens_scale=0.8), {}, 100_000).max_tokens == 1638


def test_guideline_remark_is_empty_inside_the_range():
    assert guideline_remark(0.6, QWEN) == ""
    assert "0.5 to 0.7" in guideline_remark(0.9, QWEN)
