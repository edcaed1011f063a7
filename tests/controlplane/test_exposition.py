"""/metrics is correct, complete, bounded and closed to strangers."""

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from controlplane import exposition
from controlplane.desk import LocalDesk
from optimizer.core.errors import BackendUnavailable
from optimizer.core.request import AgentProfile
from optimizer.monitor import FAMILIES, Monitor
from optimizer.ports import Finished, LoadReport
from tests.asgi_client import Client
from tests.controlplane.test_stores import NOW, RECORD

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana-dashboard.json"
HERE = {"host": "localhost:8000"}


class Service:
    """A service with a monitor that has seen a little of everything."""

    backend_name = "simulated"

    def __init__(self) -> None:
        self.monitor = Monitor(lambda: NOW)
        self.monitor.request_ended(RECORD, None)
        self.monitor.generated("tinyllama", Finished("stop", 80, 40, 0.2, 1.0))
        self.monitor.loaded("tinyllama", LoadReport(800.0, 800.0, 1.2))
        self.monitor.held_slot("tinyllama", 'sc"out\\\n', 1.2)
        self.starting = False
        self.records = type("Records", (), {"dropped": 3, "__len__": lambda _: 2})()
        self.tasks = SimpleNamespace(waiting=7, in_flight=2, ended={"succeeded": 5, "failed": 1}, put_back=4)
        self.journal = self
        self.desk = LocalDesk(self)

    @property
    def runner(self):
        if self.starting:
            raise BackendUnavailable("starting")
        return self

    def agent_for(self, token: str) -> AgentProfile | None:
        return AgentProfile("prometheus", "default") if token == "good-key" else None


def from_(peer: str, service: Service | None = None) -> Client:
    metrics = exposition.Metrics(service or Service())

    async def application(scope, receive, send):
        await metrics({**scope, "client": (peer, 1)}, receive, send)

    return Client(application, key="")


async def test_every_family_is_exposed_and_parses() -> None:
    answer = await from_("127.0.0.1").get("/metrics", headers=HERE)
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    for family in FAMILIES:
        assert exposition.PREFIX + family.name.removesuffix("_total") in families, family.name
    [agent] = families["narrowgauge_agent_slot_seconds"].samples
    assert (agent.labels, agent.value) == ({"agent": 'sc"out\\\n'}, 1.2)
    assert families["narrowgauge_records_dropped"].samples[0].value == 3
    assert families["narrowgauge_records_waiting"].samples[0].value == 2
    assert families["narrowgauge_durable_tasks_waiting"].samples[0].value == 7
    ended = {sample.labels["status"]: sample.value for sample in families["narrowgauge_durable_tasks_ended"].samples}
    assert ended == {"succeeded": 5, "failed": 1}


async def test_a_histogram_is_cumulative_and_whole() -> None:
    answer = await from_("::1").get("/metrics", headers={"host": "[::1]:8000"})
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    samples = families["narrowgauge_request_duration_seconds"].samples
    counts = [sample.value for sample in samples if sample.name.endswith("_bucket")]
    assert counts == sorted(counts) and counts[-1] == 1
    within = {float(s.labels["le"]): s.value for s in samples if s.name.endswith("_bucket")}
    assert (within[1.0], within[2.0]) == (0, 1)  # the record took 1.3 s
    assert next(s.value for s in samples if s.name.endswith("_sum")) == RECORD.total_s


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        ("10.0.0.7", HERE),
        ("127.0.0.1", {"host": "rebound.example:8000"}),
        ("127.0.0.1", {}),
        ("127.0.0.1", {**HERE, "x-forwarded-for": "10.0.0.7"}),
        ("127.0.0.1", {**HERE, "forwarded": "for=10.0.0.7"}),
        ("127.0.0.1", {"host": "127.0.0.1.evil.example"}),
    ],
)
async def test_strangers_need_a_key(peer: str, headers: dict[str, str]) -> None:
    client = from_(peer)
    assert (await client.get("/metrics", headers=headers)).status == 401
    assert (await client.get("/metrics", headers=headers, key="bad-key")).status == 401
    assert (await client.get("/metrics", headers=headers, key="good-key")).status == 200


async def test_it_says_when_it_is_not_there_yet_and_takes_no_other_method() -> None:
    service = Service()
    assert (await from_("127.0.0.1", service).post("/metrics", headers=HERE)).status == 405
    assert (await from_("127.0.0.1", service)("HEAD", "/metrics", headers=HERE)).body == b""
    service.starting = True
    assert (await from_("127.0.0.1", service).get("/metrics", headers=HERE)).status == 503


async def test_nothing_of_a_prompt_or_an_answer_is_in_it() -> None:
    body = (await from_("127.0.0.1").get("/metrics", headers=HERE)).body.decode()
    assert not any(text in body for text in (RECORD.prompt_original, RECORD.answer, RECORD.id, RECORD.protocol))


def test_the_dashboard_asks_only_for_what_there_is() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for expression in expressions for name in re.findall(r"narrowgauge_\w+", expression)}
    there = {exposition.PREFIX + family.name: family for family in (*FAMILIES, *exposition.OWN)}
    for name in asked:
        assert name in there or re.sub(r"_(bucket|sum|count)$", "", name) in there, name
    for expression in expressions:
        for name, matched in re.findall(r"(narrowgauge_\w+)\{(\w+)", expression):
            assert matched in there[name].labels
    unseen = set(there) - {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} - asked
    assert unseen <= {"narrowgauge_requests_running", "narrowgauge_prefill_tokens_per_second"}


if shutil.which("promtool"):  # Debian: prometheus; CI installs it

    @pytest.mark.slow
    async def test_promtool_finds_nothing_to_say() -> None:
        body = (await from_("127.0.0.1").get("/metrics", headers=HERE)).body
        command = ["promtool", "check", "metrics"]
        ran = await asyncio.to_thread(subprocess.run, command, input=body, capture_output=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
