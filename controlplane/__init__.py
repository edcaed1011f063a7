"""The control plane: stored state, HTTP APIs, admin and the composition root. May import `optimizer`."""

VERSION = "0.1.0"
