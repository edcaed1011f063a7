"""`manage.py evaluate`: figures as JSON or a table, without a database; clear errors."""

import json
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

SAMPLES = Path(__file__).parents[1] / "evaluation" / "data"


def evaluate(kind: str, *arguments: object) -> str:
    out = StringIO()
    call_command("evaluate", kind, "--data", *map(str, arguments), stdout=out, stderr=StringIO())
    return out.getvalue()


def written(folder: Path, *rows: object, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


def routing_rows(count: int = 40) -> list[dict]:
    return [
        {"prompt": f"Ask {n}", "task": f"t{n % 2}", "scores": {"small": float(n % 4 == 0), "large": 1.0}}
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("kind", "sample", "keys"),
    [
        ("cache", "cache_own_sample.jsonl", {"false_hit_rate", "recall", "by_kind"}),
        ("compression", "compress_sample.jsonl", {"damaged", "longer", "saved", "by_kind"}),
        ("context", "context_sample.jsonl", {"kept", "kept_facts"}),
    ],
)
def test_the_json_has_the_promised_keys(kind, sample, keys):
    assert keys <= json.loads(evaluate(kind, SAMPLES / sample, "--json")).keys()


def test_routing_takes_several_files(tmp_path):
    one, other = (written(tmp_path, *routing_rows(), name=f"{name}.jsonl") for name in ("one", "other"))
    found = json.loads(evaluate("routing", one, other, "--json"))
    assert {"apgr", "gap_recovered_20", "calibration_error", "by_set"} <= found.keys()
    assert list(found["by_set"]) == ["one: small -> large", "other: small -> large"]
    assert sum(found["shares"]["tiers"].values()) == pytest.approx(1.0, abs=0.01)


def test_files_of_one_name_are_kept_apart(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    paths = [written(tmp_path / folder, *routing_rows()) for folder in ("a", "b")]
    assert len(json.loads(evaluate("routing", *paths, "--json"))["by_set"]) == 2


def test_options_reach_the_evaluation(tmp_path):
    sample = SAMPLES / "cache_own_sample.jsonl"
    assert json.loads(evaluate("cache", sample, "--json", "--mode", "light"))["mode"] == "light"
    sample = SAMPLES / "compress_sample.jsonl"
    assert json.loads(evaluate("compression", sample, "--json", "--level", "minimal"))["level"] == "minimal"
    rows = routing_rows()
    for row in rows:
        row["scores"]["qwen:7b"] = 1.0
    found = json.loads(evaluate("routing", written(tmp_path, *rows), "--json", "--pair", "small::qwen:7b"))
    assert list(found["by_set"]) == ["rows: small -> qwen:7b"]
    found = json.loads(evaluate("routing", written(tmp_path, *rows), "--json", "--outcomes", "3"))
    assert found["outcomes_per_agent_and_tier"] == 3


def test_the_table_shows_figures_and_kinds():
    shown = evaluate("cache", SAMPLES / "cache_own_sample.jsonl")
    assert "false_hit_rate" in shown
    assert "by_kind" in shown
    assert "{" not in shown


@pytest.mark.parametrize(
    ("kind", "row", "words"),
    [
        ("cache", {"a": "x", "b": "y"}, 'needs "a" (str), "b" (str), "label" (int); this one has a, b'),
        ("cache", {"a": "x", "b": "y", "label": 2}, "label must be 0 or 1"),
        ("compression", {"prompt": "x"}, 'needs "text" (str)'),
        ("context", {"messages": [1], "question": "q", "gold": 0}, "messages need role and content"),
        ("context", {"messages": [], "question": "q", "gold": 0}, "gold must be the number of a message"),
        ("context", {"text": "x", "facts": [{"says": "y"}]}, "facts need says and asks"),
        ("routing", {"prompt": "x", "scores": {"a": "high"}}, "scores must be numbers"),
        ("routing", "[1]", "must be a JSON object"),
        ("routing", "{", "is not JSON"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(tmp_path, kind, row, words):
    with pytest.raises(CommandError) as caught:
        evaluate(kind, written(tmp_path, "", row))
    assert words in str(caught.value)
    assert "rows.jsonl, line 2" in str(caught.value)


def test_files_that_cannot_be_read_are_clear_errors(tmp_path):
    with pytest.raises(CommandError, match="No such file"):
        evaluate("cache", tmp_path / "absent.jsonl")
    with pytest.raises(CommandError, match="Is a directory"):
        evaluate("cache", tmp_path)
    with pytest.raises(CommandError, match="no rows"):
        evaluate("cache", written(tmp_path, ""))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CommandError, match="not UTF-8"):
        evaluate("cache", tmp_path / "binary")


@pytest.mark.parametrize("option", [("--pair", "small"), ("--outcomes", "0"), ("--pair", "large:small")])
def test_options_that_make_no_sense_are_clear_errors(tmp_path, option):
    with pytest.raises(CommandError):
        evaluate("routing", written(tmp_path, *routing_rows()), *option)
