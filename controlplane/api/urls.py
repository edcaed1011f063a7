"""Routes of /control/v1. Without trailing slashes, as the other two protocols."""

from django.urls import path

from controlplane.api import agents, batches, cache, control, durable, openapi, series, settings, suggestions, tasks

urlpatterns = [
    path("tasks", tasks.collection),
    path("tasks/<str:task_id>", tasks.single),
    path("tasks/<str:task_id>/feedback", tasks.single_feedback),
    path("tasks/<str:task_id>/cancel", durable.single_cancel),
    path("tasks/<str:task_id>/events", durable.single_events),
    path("batches", batches.collection),
    path("batches/<str:batch_id>", batches.single),
    path("batches/<str:batch_id>/cancel", batches.single_cancel),
    path("batches/<str:batch_id>/results", batches.single_results),
    path("agents", agents.collection),
    path("agents/<str:slug>", agents.single),
    path("thresholds", settings.thresholds_view),
    path("cache", cache.collection),
    path("cache/<str:key>", cache.single),
    path("control", control.state_view),
    path("control/<str:action>", control.action_view),
    path("series", series.series_view),
    path("suggestions", suggestions.collection),
    path("suggestions/<int:number>/<str:decision>", suggestions.single_decision),
    path("status", settings.status_view),
    path("openapi.json", openapi.as_json, name="openapi"),
    path("docs", openapi.page, name="api-docs"),
]
