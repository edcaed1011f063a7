"""Durable tasks while the whole server is killed: what was accepted, lost or answered twice, and how soon it goes on.

    python -m tests.acceptance.measure_tasks --rounds 10 [--tasks 120] [--speed 50]

Each round, on one data directory: agents send tasks with idempotency keys, a batch runs, and at a moment chosen by the
round's number the process gets SIGKILL. Senders whose call broke off repeat it after the restart. Then every accepted
task must have succeeded, once: one row per key, one result that never changes, one webhook id.
"""

import argparse
import json
import signal
import sqlite3
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from tests.served import Served, bearer, manage

SLUG = "tester"
SENDERS = 4
FINISH_S = 120.0


class Receiver(ThreadingHTTPServer):
    """Takes webhooks on a free port; `told` maps a task's or batch's id to the webhook ids it came with."""

    daemon_threads = True

    def __init__(self) -> None:
        self.told: defaultdict[str, Counter[str]] = defaultdict(Counter)
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.told[body["data"]["id"]][self.headers["webhook-id"]] += 1
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Round:
    """What one round came to."""

    accepted: int = 0
    broken_off: int = 0  # calls without an answer, repeated later
    unfinished_at_kill: int = 0
    claimed_at_kill: int = 0
    ready_s: float = 0.0  # from the restart until a model can be served
    first_s: float = 0.0  # from the restart until the first new result
    claimed_done_s: float = 0.0  # from the kill until the last of those that the dead process held
    problems: list[str] = field(default_factory=list)


def rows(data_dir: Path) -> list[dict]:
    """Every durable task as it is in the database."""
    with closing(sqlite3.connect(f"file:{data_dir / 'narrowgauge.sqlite3'}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        found = database.execute(
            "SELECT public_id, idempotency_key, batch_id, status, claim, outcome, attempts, lost, finished_at"
            " FROM controlplane_durabletask"
        ).fetchall()
    return [dict(row) for row in found]


class Sender(threading.Thread):
    """Sends its tasks one by one; notes the id of each accepted one and keeps what broke off."""

    def __init__(self, url: str, key: str, names: list[str]) -> None:
        super().__init__(daemon=True)
        self.url, self.key, self.names = url, key, names
        self.accepted: dict[str, str] = {}
        self.broken: list[str] = []

    def run(self) -> None:
        with httpx.Client(timeout=30, trust_env=False, headers=bearer(self.key)) as client:
            for name in self.names:
                try:
                    answer = client.post(f"{self.url}/control/v1/tasks", **call(name))
                except httpx.HTTPError:
                    self.broken.append(name)
                else:
                    assert answer.status_code == 202, answer.text
                    self.accepted[name] = answer.json()["id"]


def call(name: str) -> dict:
    """One durable task as a sender sends it, and repeats it."""
    body = {"prompt": f"Explain item {name} of the ledger.", "wait": False, "cache": False, "max_tokens": 60}
    return {"json": body, "headers": {"Idempotency-Key": name}}


def run_round(data_dir: Path, speed: str, number: int, tasks: int, receiver: Receiver) -> Round:
    """Accept, kill, restart, wait for everything, look for what is wrong."""
    came_to = Round()
    names = [f"{number}-{index}" for index in range(tasks)]
    options = ("--speed", speed)
    with Served(data_dir, "simulated", options) as served:
        key = served.key(SLUG)
        hooked = manage("agentwebhook", SLUG, receiver.url, "--data-dir", str(data_dir))
        assert hooked.returncode == 0, hooked.stderr
        before = sum(row["status"] == "succeeded" for row in rows(data_dir))
        batch = _batch(served, key, number, tasks)
        senders = [Sender(served.url, key, names[index::SENDERS]) for index in range(SENDERS)]
        for sender in senders:
            sender.start()
        enough = before + (number % 4 + 1) * tasks // 5  # another moment every round
        served.wait(lambda: sum(row["status"] == "succeeded" for row in rows(data_dir)) >= enough, 60)
        served.stop(signal.SIGKILL)
        killed = time.monotonic()
        for sender in senders:
            sender.join(60)
    accepted = {name: task for sender in senders for name, task in sender.accepted.items()}
    broken = [name for sender in senders for name in sender.broken]
    at_kill = {row["public_id"]: row for row in rows(data_dir)}
    answered = {task: row["outcome"] for task, row in at_kill.items() if row["status"] == "succeeded"}
    held = {task for task, row in at_kill.items() if row["claim"]}
    came_to.unfinished_at_kill = sum(row["status"] in ("queued", "running") for row in at_kill.values())
    came_to.claimed_at_kill, came_to.broken_off = len(held), len(broken)

    began = time.monotonic()
    with Served(data_dir, "simulated", options) as served:
        came_to.ready_s = time.monotonic() - began
        again = Sender(served.url, key, broken)
        again.start()

        def done(which: set[str]) -> set[str]:
            return which & {row["public_id"] for row in rows(data_dir) if row["status"] == "succeeded"}

        everything = set(at_kill)
        served.wait(lambda: len(done(everything)) > len(answered) or not everything - set(answered), FINISH_S)
        came_to.first_s = time.monotonic() - began
        served.wait(lambda: done(held) == held, FINISH_S)
        came_to.claimed_done_s = time.monotonic() - killed
        again.join(60)
        accepted |= again.accepted
        everything |= set(accepted.values())
        served.wait(lambda: all(row["status"] not in ("queued", "running") for row in rows(data_dir)), FINISH_S)
        told = {*accepted.values(), batch}
        served.wait(lambda: told <= set(receiver.told), 30)
        results = served.get(f"/control/v1/batches/{batch}/results", headers=bearer(key)).text.splitlines()
        log = served.log
    came_to.accepted = len(accepted) + tasks
    came_to.problems = [
        *_problems(rows(data_dir), accepted, answered, names),
        *[f"{task} was told under {len(ids)} webhook ids" for task, ids in receiver.told.items() if len(ids) > 1],
        *([] if len(results) == tasks else [f"{len(results)} results for a batch of {tasks}"]),
        *(["a traceback in the log"] if "Traceback" in log else []),
    ]
    return came_to


def _batch(served: Served, key: str, number: int, tasks: int) -> str:
    lines = "\n".join(
        json.dumps({"custom_id": f"line-{index}", **call(f"b{number}-{index}")["json"]}) for index in range(tasks)
    )
    answer = httpx.post(
        f"{served.url}/control/v1/batches", content=lines, headers=bearer(key), timeout=60, trust_env=False
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _problems(after: list[dict], accepted: dict[str, str], answered: dict[str, str], names: list[str]) -> list[str]:
    """Sentences about accepted tasks that are lost, or answered otherwise than once."""
    by_id = {row["public_id"]: row for row in after}
    problems = [f"{row['public_id']} is {row['status']}" for row in after if row["status"] != "succeeded"]
    problems += [f"{task} was accepted and is not there" for task in accepted.values() if task not in by_id]
    problems += [
        f"the answer of {task} changed" for task, outcome in answered.items() if by_id[task]["outcome"] != outcome
    ]
    problems += [f"{row['public_id']} has no answer" for row in after if not row["outcome"]]
    keys = Counter(row["idempotency_key"] for row in after if row["idempotency_key"])
    problems += [f"key {name} made {count} tasks" for name, count in keys.items() if count != 1]
    problems += [f"key {name} made no task" for name in names if name not in keys]
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=60, help="sent singly, and as many in a batch (default: 60)")
    parser.add_argument("--speed", default="50", help="of the simulated card (default: 50)")
    given = parser.parse_args()
    receiver, total = Receiver(), Counter[str]()
    print("round accepted broken-off unfinished claimed  ready-s first-s claimed-done-s problems")
    with tempfile.TemporaryDirectory() as data_dir:
        for number in range(given.rounds):
            r = run_round(Path(data_dir), given.speed, number, given.tasks, receiver)
            print(
                f"{number:5} {r.accepted:8} {r.broken_off:10} {r.unfinished_at_kill:10} {r.claimed_at_kill:7} "
                f"{r.ready_s:8.1f} {r.first_s:7.1f} {r.claimed_done_s:14.1f} {len(r.problems)}",
                flush=True,
            )
            for problem in r.problems:
                print("     ", problem)
            total.update(accepted=r.accepted, killed_in=r.unfinished_at_kill, problems=len(r.problems))
    receiver.close()
    print(
        f"accepted {total['accepted']}, unfinished when killed {total['killed_in']}, "
        f"lost or answered otherwise than once: {total['problems']}"
    )


if __name__ == "__main__":
    main()
