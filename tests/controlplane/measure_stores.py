"""What stored state costs: `python -m tests.controlplane.measure_stores`, on SQLite, then on Postgres.

Rule: medians of wall time on a new database (an embedded Postgres), seeded as a first start seeds it. Beside the
records stands what `bulk_create` takes for the same rows, in the same run.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

RECORDS, SMALL = 500, 10
ANSWERS = 1_000
LOOK_UPS = 20_000
DECISION = {"stage": "selection", "choice": "default", "reason": "complexity 0.31 is below 0.40", "values": {"a": 0.5}}


def ms(work: Callable[[], Any], rounds: int, before: Callable[[], Any] = lambda: None) -> float:
    """The median wall time; `before` is done before each round and not counted."""
    took = []
    for _ in range(rounds):
        before()
        began = time.perf_counter()
        work()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def main(rounds: int) -> None:
    """Measure on the database of this process's settings."""
    from django.db import connection, transaction

    from controlplane import database, keys, queries, stores
    from controlplane.models import Agent, CachedAnswer, LanguageModel, RequestRecord
    from controlplane.record_rows import row_of
    from controlplane.tables import Tables
    from optimizer.core.caching import CacheEntry
    from tests.controlplane.test_stores import NOW, RECORD

    def say(what: str, took_ms: float) -> None:
        shown = f"{took_ms * 1000:.2g} us" if took_ms < 0.1 else f"{took_ms:.{1 if took_ms < 10 else 0}f} ms"
        print(f"  {what:40} {shown:>8}", flush=True)

    print(connection.vendor)
    say("migrate and seed a fresh database", ms(database.bring_up_to_date, 1))
    say("the same when there is nothing to do", ms(database.bring_up_to_date, rounds))
    tokens = [keys.issue(agent) for agent in Agent.objects.all()]
    tables = Tables.load(LanguageModel.Backend.OLLAMA)
    token = tokens[-1]
    say("look up a token", ms(lambda: [tables.key_for(token, NOW) for _ in range(LOOK_UPS)], rounds) / LOOK_UPS)
    say("ask for the state version", ms(queries.state_version, 50 * rounds))
    say(
        f"load the tables, {len(tokens)} agents and keys", ms(lambda: Tables.load(LanguageModel.Backend.OLLAMA), rounds)
    )

    texts = {"prompt_original": "x" * 3_000, "prompt_sent": "y" * 2_400, "answer": "z" * 800}
    large = replace(RECORD, decisions=(DECISION,) * 6, **texts)
    records = [replace(large, id=f"r{number}") for number in range(RECORDS)]
    buffer = stores.RecordBuffer()

    def append(number: int) -> None:
        for record in records[:number]:
            buffer.save(record)

    def waiting(number: int) -> None:
        RequestRecord.objects.all().delete()
        append(number)

    def by_django() -> None:
        with transaction.atomic():
            RequestRecord.objects.bulk_create(map(row_of, records), ignore_conflicts=True)

    say("append a record", ms(lambda: append(RECORDS), rounds) / RECORDS)
    buffer.flush()
    for number in (SMALL, RECORDS):
        say(f"flush {number} records of 7 kB", ms(buffer.flush, rounds, lambda number=number: waiting(number)))
    say(f"bulk_create of {RECORDS}, for comparison", ms(by_django, rounds, RequestRecord.objects.all().delete))

    answers = stores.CacheBuffer()
    question, text = "a question " * 10, "an answer " * 40
    entry = CacheEntry("", "part", "scout", "", "tinyllama", question, text, "", "stop", 50, 80, None, NOW)
    entries = [replace(entry, key=f"k{number}") for number in range(ANSWERS)]

    def answered() -> None:
        CachedAnswer.objects.all().delete()
        for one in entries:
            answers.put(one)

    say(f"write {ANSWERS} cached answers", ms(answers.flush, rounds, answered))
    say(f"load {ANSWERS} cached answers", ms(stores.load_cache, rounds))


def on_each(rounds: int) -> None:
    """A process for each database, because the settings name it."""
    from tests.postgres_server import postgres

    command = [sys.executable, "-m", "tests.controlplane.measure_stores", "--here", "--rounds", str(rounds)]
    with tempfile.TemporaryDirectory() as directory:
        given = {**os.environ, "NARROWGAUGE_DATA_DIR": directory}
        subprocess.run(command, env={**given, "DATABASE_URL": ""}, check=True)
        with postgres(Path(directory) / "postgres") as url:
            subprocess.run(command, env={**given, "DATABASE_URL": url}, check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="default: 9")
    parser.add_argument("--here", action="store_true", help="only on the database of DATABASE_URL, which is changed")
    options = parser.parse_args()
    if options.here:
        import django

        os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
        django.setup()
        main(options.rounds)
    else:
        on_each(options.rounds)
