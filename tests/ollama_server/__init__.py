"""An Ollama server without a model: its real API and its real scheduling rules, on the modelled machine.

For tests of the Ollama backend and of the product as a whole (131 agents in front of Ollama's own queue).
    async with OllamaServer(speed=20) as server: ... server.url, server.stats
    python -m tests.ollama_server --port 11434 --speed 20
"""

from tests.ollama_server.server import OllamaServer

__all__ = ["OllamaServer"]
