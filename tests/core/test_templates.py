"""Response templates: shapes, braces, and applying twice."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer.core.errors import InvalidRequest
from optimizer.core.templates import TEMPLATES, apply, check


def test_code_is_fenced_once():
    fenced = apply("code", "print({1: 2})", language="python")
    assert fenced == "```python\nprint({1: 2})\n```"
    assert apply("code", fenced, language="python") == fenced


def test_list_makes_every_line_an_item():
    assert apply("list", "1. first\n\n* second\nthird") == "- first\n- second\n- third"


def test_json_keeps_the_models_own_data_and_survives_braces():
    assert json.loads(apply("json", '```json\n{"a": [1, 2]}\n```')) == {"status": "ok", "data": {"a": [1, 2]}}
    assert json.loads(apply("json", "use {braces} and {}")) == {"status": "ok", "data": "use {braces} and {}"}


def test_unknown_template_is_the_callers_fault():
    with pytest.raises(InvalidRequest, match="code, list, json"):
        check("xml")


@given(st.sampled_from([*TEMPLATES, ""]), st.text())
def test_applying_twice_changes_nothing(template, text):
    once = apply(template, text)
    assert apply(template, once) == once
