"""`manage.py profile-agents`: every agent, from the records, without touching an assignment."""

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from controlplane.models import Agent, RequestRecord

pytestmark = pytest.mark.django_db


def profile(*arguments: str) -> str:
    out = StringIO()
    call_command("profile-agents", *arguments, stdout=out)
    return out.getvalue()


def answered(agent: str, count: int = 25, complexity: float | None = 0.95, days_ago: float = 0.0, **fields) -> None:
    zero = dict.fromkeys(("queue_s", "load_s", "prefill_s", "decode_s", "ttft_s", "total_s"), 0.0)
    tokens = dict.fromkeys(("prompt_tokens_original", "prompt_tokens", "output_tokens"), 1)
    values = {"status": "replied", "simulated": False, "tier": "sonnet", "good": None, **fields}
    first = RequestRecord.objects.count()
    RequestRecord.objects.bulk_create(
        RequestRecord(
            id=f"r{first + n}",
            agent=agent,
            arrived_at=timezone.now() - timedelta(days=days_ago, seconds=n),
            complexity=complexity,
            **zero,
            **tokens,
            **values,
        )
        for n in range(count)
    )


def of(slug: str, *arguments: str) -> dict:
    agents = json.loads(profile("--json", *arguments))["agents"]
    return next(agent for agent in agents if agent["slug"] == slug)


def test_all_agents_are_listed_and_none_is_judged_without_requests(seeded):
    shown = profile()
    assert shown.startswith("131 agents, 0 suggested reassignments")
    assert shown.count("Too early to say") == 131


def test_a_workload_that_outgrew_its_tier_is_suggested_and_nothing_is_changed(seeded):
    slug = Agent.objects.filter(tier_id="default").first().slug
    answered(slug, good=True)
    found = of(slug)
    assert (found["assigned"], found["suggested"], found["requests"]) == ("default", "sonnet", 25)
    assert found["outcomes"] == {"sonnet": [25, 25]}
    assert found["answered_by"] == {"sonnet": 25}
    assert Agent.objects.get(slug=slug).tier_id == "default"
    assert profile("--suggested").count(" default ") == 1


def test_what_says_nothing_of_the_workload_is_left_out(seeded):
    slug = Agent.objects.filter(tier_id="default").first().slug
    answered(slug, days_ago=30)
    answered(slug, simulated=True)
    answered(slug, status="failed")
    answered(slug, complexity=None)
    assert of(slug)["requests"] == 0
    assert of(slug, "--simulated")["requests"] == 25
    assert of(slug, "--days", "60")["requests"] == 25


def test_a_span_that_makes_no_sense_is_a_clear_error():
    with pytest.raises(CommandError, match="--days"):
        profile("--days", "0")
