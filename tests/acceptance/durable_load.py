"""Durable tasks as a load beside the streams of `faults.py`: what was accepted is answered, once, whatever breaks.

A sender posts task after task through both web processes, each under an idempotency key of its own, and repeats a post
that broke off or was refused until it is accepted. Every result that it sees is remembered: it must never change.
"""

import threading
import time

import httpx
import psycopg

from tests.served import bearer

ENDED = ("succeeded", "failed", "cancelled")
EVERY_S = 0.25  # pause between tasks
BETWEEN_REPEATS_S = 0.2


class DurableTasks:
    """A `faults.Load`; `unfinished()` and `problems()` read the database."""

    def __init__(self, urls: list[str], key: str, database_url: str) -> None:
        self.urls, self.key, self.database_url = urls, key, database_url
        self.run = time.time_ns()
        self.accepted: dict[str, str] = {}  # task by idempotency key
        self.seen: dict[str, str] = {}  # the first result that was read of a task
        self.changed: list[str] = []
        self.repeats = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Send nothing new; what broke off is still repeated until it is accepted."""
        self._stopped.set()
        self._thread.join(60)

    def unfinished(self) -> int:
        return sum(status not in ENDED for _, status, _ in self._rows().values())

    def problems(self) -> list[str]:
        """Sentences about accepted tasks that are lost, failed, or have more or less than one answer."""
        rows = self._rows()
        said = ["a task is still not accepted"] if self._thread.is_alive() else []
        said += [f"{task} was accepted and is not there" for task in self.accepted.values() if task not in rows]
        said += [f"{task} is {status}" for task, (_, status, _) in rows.items() if status != "succeeded"]
        said += [f"{task} succeeded without an answer" for task, (_, _, text) in rows.items() if not text]
        said += [f"the answer of {task} changed" for task in self.changed]
        said += [f"the answer of {task} changed" for task, text in self.seen.items() if rows[task][2] != text]
        keys = [key for key, _, _ in rows.values()]
        said += [f"key {key} made {keys.count(key)} tasks" for key in set(keys) if keys.count(key) > 1]
        return said

    def _rows(self) -> dict[str, tuple[str, str, str | None]]:
        """(idempotency key, status, text of the answer) by task."""
        with psycopg.connect(self.database_url) as database:
            found = database.execute(
                "SELECT public_id, idempotency_key, status, outcome->'result'->>'text' FROM controlplane_durabletask"
                " WHERE idempotency_key LIKE %s",
                (f"{self.run}-%",),
            ).fetchall()
        return {task: (key, status, text) for task, key, status, text in found}

    def _send(self) -> None:
        with httpx.Client(timeout=15, trust_env=False, headers=bearer(self.key)) as client:
            number = 0
            while not self._stopped.wait(EVERY_S):
                number += 1
                self._accept(client, number)
                self._read(client)

    def _accept(self, client: httpx.Client, number: int) -> None:
        name = f"{self.run}-{number}"
        body = {"prompt": f"task {name}: what is in the hold?", "wait": False, "cache": False, "max_tokens": 20}
        web = number
        while True:
            url = f"{self.urls[web % len(self.urls)]}/control/v1/tasks"
            try:
                answer = client.post(url, json=body, headers={"Idempotency-Key": name})
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.status_code == 202:
                self.accepted[name] = answer.json()["id"]
                return
            assert answer is None or answer.status_code == 503, answer.text
            self.repeats += 1
            web += 1
            time.sleep(BETWEEN_REPEATS_S)

    def _read(self, client: httpx.Client) -> None:
        """Look at one task that was accepted a while ago."""
        task = list(self.accepted.values())[-len(self.accepted) // 2]
        try:
            answer = client.get(f"{self.urls[0]}/control/v1/tasks/{task}")
        except httpx.HTTPError:
            return
        if answer.status_code == 200 and answer.json()["status"] == "succeeded":
            text = answer.json()["result"]["text"]
            if self.seen.setdefault(task, text) != text:
                self.changed.append(task)
