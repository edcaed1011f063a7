"""Runs many agents' requests on one small GPU: decides, then drives a model backend.

Knows nothing of Django, Channels, Celery or Redis; `controlplane` composes it.
"""
