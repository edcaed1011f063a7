"""The parent's side of the embedded engine's child processes: start, watch, measure, end.

Rule: a child that was started here is ended here, whatever happens; its last log lines explain its end.
Must not know: HTTP requests, prompts, or which model should be in memory.
"""

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optimizer.backends.llamacpp_child import READY
from optimizer.core.errors import LoadFailed

_log = logging.getLogger(__name__)
_ROOT = Path(__file__).resolve().parents[2]  # where `optimizer` can be imported from
_KEPT_LINES = 40
_TOLD_LINES = 4  # of them in an error
_LINE_BYTES = 1 << 20


class Child:
    """One running `llamacpp_child`. Made by `start`; `url` answers with `api_key` until `stop` or its death."""

    def __init__(self, process: asyncio.subprocess.Process, api_key: str) -> None:
        self._process = process
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reader = asyncio.create_task(self._read_log())
        self.api_key = api_key
        self.url = ""

    @classmethod
    async def start(cls, settings: Mapping[str, Any]) -> "Child":
        """Start a child and wait until its model is loaded. Raises LoadFailed with the log's last lines."""
        api_key = secrets.token_urlsafe(24)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "optimizer.backends.llamacpp_child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,  # one line, see llamacpp_child; the log has a pipe of its own, since
            stderr=asyncio.subprocess.PIPE,  # llama.cpp writes it in pieces, between which that line could fall
            cwd=_ROOT,
            env={"MALLOC_ARENA_MAX": "2", **os.environ},  # glibc: footprints that do not depend on the cores
            start_new_session=True,  # Ctrl-C in the terminal is for the parent, which drains first
            limit=_LINE_BYTES,
        )
        child = cls(process, api_key)
        try:
            line = json.dumps({**settings, "api_key": api_key, "parent_pid": os.getpid()})
            assert process.stdin is not None
            with contextlib.suppress(ConnectionError):  # it died already: the reader says so
                process.stdin.write(line.encode() + b"\n")
                await process.stdin.drain()
            child.url = await child._url()
        except BaseException:  # cancelled loads too: never leave a child behind
            await child.stop()
            raise
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def resident_mb(self) -> float:
        """Memory it takes now, MB; 0.0 when it is dead (also before its end was noticed)."""
        if not self.alive:
            return 0.0
        return _linux_resident_mb(self.pid) if sys.platform == "linux" else await _ps_resident_mb(self.pid)

    async def wait(self, timeout_s: float) -> None:
        """Returns when it has ended. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await self._process.wait()

    async def stop(self) -> None:
        """End it; returns when the system has taken its memory back."""
        # SIGKILL: there is nothing to save, and a wedged child ends too.
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reader

    def last_words(self) -> str:
        """How it ended and what it said last, in a sentence."""
        code = self._process.returncode
        if code is None:
            ended = "still runs"
        elif code < 0:
            ended = f"was ended by {signal.Signals(-code).name}"
        else:
            ended = f"ended with status {code}"
        said = " | ".join(list(self._lines)[-_TOLD_LINES:])
        return f"its process {ended}{f'; it said: {said}' if said else ''}"

    async def _url(self) -> str:
        """Where it serves, as soon as it does. Raises LoadFailed when it ends before."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if line.startswith(READY):
            url: str = json.loads(line.removeprefix(READY))["url"]
            return url
        await self._process.wait()
        await self._reader
        raise LoadFailed(self.last_words())

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        async for raw in self._process.stderr:
            if line := raw.decode(errors="replace").rstrip():
                self._lines.append(line)
                _log.debug("child %d: %s", self.pid, line)


def _linux_resident_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    # A zombie has no VmRSS line. RSS, not PSS: mapped weights count in full, whoever else maps them.
    kb = next((line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")), "0")
    return int(kb) / 1024


async def _ps_resident_mb(pid: int) -> float:
    process = await asyncio.create_subprocess_exec(
        "ps", "-o", "rss=", "-p", str(pid), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    out, _ = await process.communicate()
    return int(out.strip() or 0) / 1024
