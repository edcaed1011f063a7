"""The admin: pages to see and change all stored state. Importing this package registers them."""

from django.contrib import admin

from controlplane.admin import agents, catalogue, decisions, history, tasks, thresholds

__all__ = ["agents", "catalogue", "decisions", "history", "tasks", "thresholds"]

admin.site.site_header = "Narrowgauge"
admin.site.site_title = "Narrowgauge admin"
admin.site.index_title = "Agents, models and settings"
