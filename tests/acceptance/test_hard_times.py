"""A disk that is full and a clock that jumps: it goes on serving, says so, loses nothing and recovers."""

import os
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.served import Served, bearer

pytestmark = pytest.mark.slow

YEARS_S = 5 * 365 * 86_400.0


def storage(server: Served, key: str) -> dict:
    return server.get("/control/v1/status", headers=bearer(key)).json()["storage"]


def ask(server: Served, key: str, text: str, path: str = "/v1/chat/completions") -> httpx.Response:
    body = {"model": "default", "messages": [{"role": "user", "content": text}], "max_tokens": 20}
    return httpx.post(server.url + path, json=body, headers=bearer(key), timeout=60, trust_env=False)


def stored(directory: Path) -> int:
    with closing(sqlite3.connect(directory / "narrowgauge.sqlite3")) as opened:
        return int(opened.execute("SELECT count(*) FROM controlplane_requestrecord").fetchone()[0])


# --- the disk ----------------------------------------------------------------------------------------------------


def test_a_full_disk_stops_no_answer_is_said_and_loses_no_record(tmp_path):
    """The limit on the size of files stands for the disk: writes beyond it fail, until there is room again."""
    with Served(tmp_path, "simulated", ("--speed", "50")) as server:
        key = server.key("tester", "--scope", "requests", "--scope", "admin")
        assert ask(server, key, "before").status_code == 200
        server.wait(lambda: stored(tmp_path) == 1, 10)
        server.wait(lambda: storage(server, key) == {"waiting": 0, "dropped": 0, "trouble": ""}, 10)
        before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        full = (tmp_path / "up.log").stat().st_size + 2048  # room for the log to say so, not for the database
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (full, before[1]))
        for number in range(20):
            assert ask(server, key, f"meanwhile {number} " + "word " * 400).status_code == 200
        server.wait(lambda: storage(server, key)["trouble"] and storage(server, key)["waiting"] >= 20, 10)
        assert "request records: not written, kept for another try" in server.log
        assert server.get("/healthz").status_code == 200 and server.get("/metrics").status_code == 200

        def counted() -> bool:  # none in the moment in which they are tried again
            waiting = [line for line in server.get("/metrics").text.splitlines() if "_records_waiting " in line]
            return bool(waiting) and float(waiting[-1].split()[1]) >= 20

        server.wait(counted, 10)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, before)
        server.wait(lambda: stored(tmp_path) == 21, 20)
        server.wait(lambda: storage(server, key) == {"waiting": 0, "dropped": 0, "trouble": ""}, 10)
        assert "request records: written again" in server.log and "CRITICAL" not in server.log
        assert ask(server, key, "after").status_code == 200
        assert server.stop() == 0
    with closing(sqlite3.connect(tmp_path / "narrowgauge.sqlite3")) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


# --- the clock ---------------------------------------------------------------------------------------------------


class UnderJumpingClock(Served):
    """A server whose wall clock a test moves."""

    @property
    def clock(self) -> Path:
        return self.data_dir / "clock"

    def command(self) -> list[str]:
        return ["-m", "tests.jumping_clock", str(self.clock)]

    def jump(self, seconds: float) -> None:
        draft = self.clock.with_suffix(".draft")
        draft.write_text(str(seconds))
        os.replace(draft, self.clock)


@pytest.fixture
def server(tmp_path) -> Iterator[UnderJumpingClock]:
    with UnderJumpingClock(tmp_path, "simulated", ("--speed", "20")) as served:
        yield served


def test_a_clock_that_jumps_breaks_no_stream_and_deletes_no_history(server, tmp_path):
    key = server.key("tester", "--scope", "requests", "--scope", "admin")
    assert ask(server, key, "before").status_code == 200
    url, asked = f"{server.url}/v1/chat/completions", 1
    for jumps, jump_s in enumerate((YEARS_S, 0.0, -YEARS_S, 0.0), start=1):
        body = {"model": "opus", "messages": [{"role": "user", "content": f"Tell long story {jumps}"}], "stream": True}
        with httpx.stream("POST", url, json=body, headers=bearer(key), timeout=60, trust_env=False) as answer:
            lines = answer.iter_lines()
            next(line for line in lines if line.startswith("data: "))
            server.jump(jump_s)
            assert "data: [DONE]" in list(lines)[-2:]
        server.wait(lambda jumps=jumps: server.log.count("the clock jumped") == jumps, 10)
        assert ask(server, key, f"after jump {jumps}").status_code == 200
        asked += 2
        server.wait(lambda asked=asked: stored(tmp_path) == asked, 10)
    assert storage(server, key)["trouble"] == "" and server.get("/healthz").status_code == 200
    assert "Traceback" not in server.log and "CRITICAL" not in server.log
    assert server.stop() == 0
