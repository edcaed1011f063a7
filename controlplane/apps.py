"""The Django application. It starts nothing: the engine is started by the commands that serve."""

from django.apps import AppConfig


class ControlplaneConfig(AppConfig):
    name = "controlplane"
    verbose_name = "Narrowgauge"

    def ready(self) -> None:
        from controlplane import checks  # noqa: F401  (registers the system checks)
