"""The native REST API, /control/v1: plain Django views around the engine and the stored state."""
