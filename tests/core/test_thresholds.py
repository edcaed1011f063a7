"""Thresholds: one typed object, every field described, every change validated."""

import pytest

from optimizer.core.thresholds import ThresholdError, Thresholds, as_dict, changed, default, limits


@pytest.mark.parametrize("name", list(limits()))
def test_every_field_says_its_unit_group_help_and_source(name):
    limit = limits()[name]
    assert limit.help.endswith(".") and limit.group and limit.source
    assert (limit.low is not None) == (type(default(name)) in (int, float))


@pytest.mark.parametrize("name", list(limits()))
def test_every_default_is_inside_its_own_limits(name):
    assert changed(Thresholds(), {name: str(default(name))}) == Thresholds()


def test_all_bad_fields_are_named_at_once_and_nothing_changes():
    with pytest.raises(ThresholdError) as error:
        changed(Thresholds(), {"slots": "0", "order": "random", "nonsense": 1, "stay": "nan", "coalesce": "maybe"})
    assert set(error.value.problems) == {"slots", "order", "nonsense", "stay", "coalesce"}


def test_strings_from_forms_are_typed():
    result = changed(Thresholds(), {"slots": "3", "stay": "8", "coalesce": "off"})
    assert (result.slots, result.stay, result.coalesce) == (3, 8.0, False)


def test_cuts_must_be_in_order():
    with pytest.raises(ThresholdError, match="cut_opus"):
        changed(Thresholds(), {"cut_sonnet": 0.9})


def test_usable_vram_is_memory_times_headroom():
    assert Thresholds().usable_mb == pytest.approx(3686.4)


def test_as_dict_round_trips():
    assert changed(Thresholds(), as_dict(Thresholds(stay=3.0))) == Thresholds(stay=3.0)
