"""Agents as a file: out and back changes nothing, every bad row is explained, all rows or none."""

import json
from pathlib import Path

import pytest
from django.core.management import CommandError

from controlplane import agent_files
from controlplane.agent_files import Kind
from controlplane.models import Agent, AuditEntry, StateVersion
from optimizer.core.errors import ConfigurationError
from tests.controlplane.test_replay_command import called

pytestmark = pytest.mark.usefixtures("seeded")


def row(text: str, form: str = "csv") -> agent_files.Row:
    (only,) = agent_files.plan(text, form).rows
    return only


@pytest.mark.parametrize("form", agent_files.FORMATS)
def test_what_is_written_reads_back_as_the_same(form):
    Agent.objects.filter(slug="debugger").update(
        description='says "hi", twice\nand more', weight=0.123456789, priority=Agent.Priority.BATCH, paused=True
    )
    plan = agent_files.plan(agent_files.write(Agent.objects.all(), form), form)
    assert plan.count(Kind.SAME) == len(plan.rows) == 131 and not plan.ready


def test_new_and_changed_agents_are_shown_then_written_together():
    text = "slug,tier,weight,priority,paused\nmy-own,opus,2,interactive,no\ndebugger,,3,,yes\n"
    plan = agent_files.plan(text.replace("debugger,,", "debugger,sonnet,").replace(",,yes", ",agent,yes"), "csv")
    new, changed = plan.rows
    assert (new.kind, changed.kind) == (Kind.ADD, Kind.CHANGE) and plan.ready
    assert changed.changes["weight"] == ("1", "3") and changed.changes["paused"] == ("false", "true")
    assert not Agent.objects.filter(slug="my-own").exists()
    before = StateVersion.current()
    assert agent_files.apply(plan, "anna") == 2
    made = Agent.objects.get(slug="my-own")
    assert (made.tier_id, made.weight, made.priority, made.name) == ("opus", 2.0, Agent.Priority.INTERACTIVE, "my-own")
    assert Agent.objects.get(slug="debugger").paused and StateVersion.current() > before
    assert AuditEntry.objects.filter(actor="anna", detail__by="import").count() == 2


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("tier,queen", "tier: 'queen' is no tier; there are: default, opus, sonnet"),
        ("weight,heavy", "weight: “heavy” value must be a float."),
        ("weight,1000", "weight: Ensure this value is less than or equal to 100.0."),
        ("weight,nan", "weight: must be a number"),
        ("weight,", "weight: must not be empty"),
        ("paused,perhaps", "paused: must be true or false"),
        ("priority,urgent", "priority: must be one of interactive, agent, batch"),
        ("cache,sometimes", "cache: Value 'sometimes' is not a valid choice."),
        ("max_waiting,-1", "max_waiting: Ensure this value is greater than or equal to 0."),
        ("max_tier,default", "tier: must be from default to default"),
        ("cache_group,two words", "cache_group: Enter a valid"),
        ("description,a\x00b", "description: holds a character that cannot be stored"),
    ],
)
def test_a_bad_cell_is_explained(cells, said):
    name, value = cells.split(",")
    found = row(f"slug,{name}\nsystem-architect,{value}\n")
    assert found.kind is Kind.WRONG and len(found.problems) == 1 and found.problems[0].startswith(said), found.problems


def test_a_bad_slug_a_repeated_one_and_too_many_cells_are_explained():
    plan = agent_files.plan("slug,name\ntwo words,x\n,y\na,A\na,B\nb,B,C\n", "csv")
    problems = [found.problems[0][:30] if found.problems else "" for found in plan.rows]
    assert problems == [
        "slug: Enter a valid “slug” con", "slug: This field cannot be bla", "", "slug: the same as in row 4",
        "more cells than columns",
    ]  # fmt: skip
    with pytest.raises(ConfigurationError, match="4 rows are wrong"):
        agent_files.apply(plan, "anna")
    assert not Agent.objects.filter(slug="a").exists()


@pytest.mark.parametrize(
    ("text", "form", "said"),
    [
        ("", "csv", "'slug' is missing"),
        ("slug\n", "csv", "holds no agent"),
        ("slug,colour\na,red\n", "csv", "unknown column colour; there are: slug, name"),
        ("name\nA\n", "csv", "'slug' is missing"),
        ('slug,name\na,"open', "csv", "is no CSV"),
        ("[", "json", "is no JSON"),
        ("[" * 100_000, "json", "is no JSON"),
        ('{"slug": "a"}', "json", "a JSON list of objects"),
        ('[{"slug": "a", "id": 7}]', "json", "unknown column id"),
    ],
)
def test_what_is_no_file_of_agents_is_refused(text, form, said):
    with pytest.raises(ConfigurationError, match=said):
        agent_files.plan(text, form)


def test_json_takes_its_own_types_and_nothing_nested():
    assert row('[{"slug": "debugger", "paused": true, "weight": 2}]', "json").changes == {
        "weight": ("1", "2"), "paused": ("false", "true"),
    }  # fmt: skip
    assert row('[{"slug": "debugger", "tags": ["a"]}]', "json").problems == ["tags: must be a single value"]
    assert row('[{"slug": "debugger", "weight": true}]', "json").problems == ["weight: must not be true or false"]


def test_by_command_a_dry_run_says_and_an_import_does(tmp_path: Path):
    file = tmp_path / "agents.csv"
    called("agents", "export", "--out", str(file), "--tier", "opus")
    assert len(file.read_text().splitlines()) == 37
    assert len(json.loads(called("agents", "export", "--format", "json")[0])) == 131
    file.write_text("slug,expertise_level\nsystem-architect,0.85\nmy-own,0.2\n")
    said, _ = called("agents", "import", str(file), "--dry-run")
    assert "row 2, system-architect: expertise_level" in said and "row 3, my-own: new" in said and "dry run" in said
    assert not Agent.objects.filter(slug="my-own").exists()
    assert "2 agents written." in called("agents", "import", str(file))[0]
    assert Agent.objects.get(slug="system-architect").expertise_level == 0.85
    file.write_text("slug,expertise_level\nsystem-architect,2\n")
    with pytest.raises(CommandError, match="1 rows are wrong"):
        called("agents", "import", str(file))
    with pytest.raises(CommandError, match="cannot read"):
        called("agents", "import", str(tmp_path / "none.csv"))
