"""Embedders that can be chosen instead of the default one (`optimizer.embedding`)."""
