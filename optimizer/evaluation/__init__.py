"""Recomputing the quality figures on labelled files; used by `manage.py evaluate` and importable."""
