"""Celery's tasks: the rota, one chore a message.

Rule: thin; a task that comes too early or twice does nothing.
"""

from celery import shared_task

from controlplane import rota


@shared_task
def do(name: str) -> None:
    """Do a chore of the rota if it is due."""
    rota.do(name)


@shared_task
def tune() -> None:
    """Start a cycle of the tuner if one is due."""
    rota.tune()
