"""Watching and tuning from outside: measured by Prometheus' own format, recorded, replayed, applied, taken back."""

import json
import signal
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.served import Served, bearer, manage

pytestmark = pytest.mark.slow

PATIENCE_S = 300.0  # a cycle runs at low priority: on a busy machine it gets what is left

# Two hours of questions that come again every 12 minutes, under a TTL of 10 minutes.
PLANT = """
import time
from dataclasses import replace
from controlplane import stores, thresholds
from controlplane.models import ThresholdRevision
from tests.controlplane.test_stores import RECORD
thresholds.change({"cache_ttl_s": 600.0}, "anna", "too short")
ThresholdRevision.objects.update(at="2020-01-01T00:00Z")
models, buffer = ("tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b"), stores.RecordBuffer()
for n in range(240):
    key = ({"stage": "cache", "values": {"key": str(n % 24)}},)
    buffer.save(replace(RECORD, id=f"r{n}", arrived_at=time.time() - 60 - n * 30, model=models[n % 24 % 3],
                        output_tokens=100 + 37 * n % 400, total_s=9.0, decisions=key))
buffer.flush()
"""


# Two hours later, seen from the change: the same questions again, and reality has become 2.5 times as slow.
WORSE = """
import time
from dataclasses import replace
from datetime import timedelta
from django.db.models import F
from controlplane import stores
from controlplane.models import Chore, RequestRecord, Suggestion, ThresholdRevision
from tests.controlplane.test_stores import RECORD
back = timedelta(hours=2)
RequestRecord.objects.update(arrived_at=F("arrived_at") - back)
Suggestion.objects.update(decided_at=F("decided_at") - back)
ThresholdRevision.objects.update(at=F("at") - back)
Chore.objects.update(began_at=F("began_at") - back)
models, buffer = ("tinyllama", "qwen2.5-coder:7b", "deepseek-r1:8b"), stores.RecordBuffer()
for n in range(238):
    key = ({"stage": "cache", "values": {"key": str(n % 24)}},)
    buffer.save(replace(RECORD, id=f"w{n}", arrived_at=time.time() - 5 - n * 30, model=models[n % 24 % 3],
                        output_tokens=100 + 37 * n % 400, total_s=22.5, decisions=key))
buffer.flush()
"""


def asked(server: Served, key: str, model: str, text: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    answer = httpx.post(
        f"{server.url}/v1/chat/completions", headers=bearer(key), json=body, timeout=60, trust_env=False
    )
    assert answer.status_code == 200, answer.text


def test_a_user_records_replays_applies_and_takes_back(tmp_path: Path) -> None:
    data = tmp_path / "data"
    here = ("--data-dir", str(data))
    assert manage("agentkey", "tester", "--create", *here).returncode == 0
    planted = manage("shell", "-c", PLANT, *here)
    assert planted.returncode == 0, planted.stderr
    with Served(data, "simulated", ("--speed", "100")) as server:
        key = server.key("watcher")
        for model in ("default", "sonnet", "opus", "default"):
            asked(server, key, model, f"Say hello, {model}")
        answer = server.get("/metrics")  # no key: the same machine
        families = {family.name: family for family in text_string_to_metric_families(answer.text)}
        ended = {s.labels["model"]: s.value for s in families["narrowgauge_requests"].samples}
        assert ended == {"tinyllama": 2, "qwen2.5-coder:7b": 1, "deepseek-r1:8b": 1}
        assert server.get("/metrics", headers={"X-Forwarded-For": "10.0.0.7"}).status_code == 401

        file, page = tmp_path / "traffic.jsonl", tmp_path / "page.html"
        recorded = manage("record", "--hours", "3", "--out", str(file), *here)
        assert "requests recorded" in recorded.stderr, recorded.stderr
        replayed = manage("replay", str(file), "--set", "cache_ttl_s=900", "--json", "--html", str(page), *here)
        effect = json.loads(replayed.stdout)["effect"]
        assert effect["ratio"] < 0.8 and page.stat().st_size > 10_000

        cycle = json.loads(manage("tune", "--json", *here).stdout)
        assert cycle["said"].startswith("proposed: cache_ttl_s 600 → 900"), cycle
        number = str(cycle["suggestion"])
        assert manage("suggestions", "apply", number, *here).stdout.startswith(f"{number} applied")

        def ttl() -> float:
            return server.get("/control/v1/thresholds", headers=bearer(key)).json()["thresholds"]["cache_ttl_s"][
                "value"
            ]

        server.wait(lambda: ttl() == 900.0, 30)  # the running engine has taken it up
        assert manage("suggestions", "roll-back", number, *here).returncode == 0
        server.wait(lambda: ttl() == 600.0, 30)


def test_the_engine_tunes_by_itself_and_takes_a_bad_change_back_after_a_crash(tmp_path: Path) -> None:
    data = tmp_path / "data"
    here = ("--data-dir", str(data))

    def decided() -> list[tuple[str, str]]:
        listed = json.loads(manage("suggestions", "--all", "--json", *here).stdout)
        return [(s["state"], s["actor"]) for s in listed if s["rule"] == "tune-cache-ttl-s"]

    assert manage("agentkey", "tester", "--create", *here).returncode == 0
    often = PLANT + 'thresholds.change({"tuning_cycle_s": 5.0, "tuning_mode": "auto"}, "anna", "often")'
    assert manage("shell", "-c", often, *here).returncode == 0
    with Served(data, "simulated") as server:
        server.wait(lambda: "tuning cycle: applied: cache_ttl_s 600 → 900" in server.log, PATIENCE_S)
        server.stop(signal.SIGKILL)
    assert decided() == [("applied", "narrowgauge")]
    worse = manage("shell", "-c", WORSE, *here)
    assert worse.returncode == 0, worse.stderr
    with Served(data, "simulated") as server:
        server.wait(lambda: "worse; rolled back" in server.log, PATIENCE_S)
        key = server.key("tester")
        ttl = server.get("/control/v1/thresholds", headers=bearer(key)).json()["thresholds"]["cache_ttl_s"]["value"]
    assert decided() == [("rolled_back", "narrowgauge")] and ttl == 600.0
