"""The test server in a process of its own, for tests that drive the product from outside."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.served import ROOT, environment


@contextmanager
def ollama_process(speed: float, port: int = 0) -> Iterator[str]:
    """Its address. It is killed, not asked, at the end."""
    command = [sys.executable, "-m", "tests.ollama_server", "--port", str(port), "--speed", str(speed)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        said = process.stdout.readline()
        address = re.search(r"http://[\d.:]+", said)
        assert address, said
        yield address[0]
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()
