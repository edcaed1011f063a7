"""The Django application of the pages people watch."""

from django.apps import AppConfig


class DashboardConfig(AppConfig):
    name = "dashboard"
