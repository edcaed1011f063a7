"""The Celery application of a scaled installation: `celery -A controlplane worker` and `celery -A controlplane beat`.

Rule: beat only says that it is time to look; whether a chore is due and nobody does it yet is the database's to say
(controlplane/chores.py), so several workers, a second beat or a repeated message do no harm, and a lost one is made
up for by the next. Must not know: what the chores do.
"""

import os

import django
from celery import Celery
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
django.setup()  # the rota reaches the models

from controlplane import data_dir  # noqa: E402
from controlplane.rota import ROTA, TUNE_LOOK_S  # noqa: E402

LOOK_EVERY_S = 10.0  # a chore is done at most this much later than it is due

app = Celery("narrowgauge", broker=settings.REDIS_URL or "memory://")
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    task_acks_late=True,  # a worker that dies gives its message back
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,  # our own lines, as everywhere
    task_default_queue="narrowgauge",
    beat_schedule_filename=str(data_dir.path() / "celery-beat"),
    beat_schedule={
        **{
            name: {
                "task": "controlplane.tasks.do",
                "args": [name],
                "schedule": min(LOOK_EVERY_S, duty.every_s),
                "options": {"expires": LOOK_EVERY_S},  # nobody needs an old reminder
            }
            for name, duty in ROTA.items()
        },
        "tune": {"task": "controlplane.tasks.tune", "schedule": TUNE_LOOK_S, "options": {"expires": TUNE_LOOK_S}},
    },
)
app.autodiscover_tasks(["controlplane"])
