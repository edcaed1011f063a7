"""A real `manage.py up` in its own process, for tests that drive the product from outside."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
START_S = 120.0  # the embedded engine on two busy cores


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Served:
    """`with Served(data_dir, "simulated") as server:` is ready to answer."""

    data_dir: Path
    backend: str
    options: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    wait_ready: bool = True
    environ: dict[str, str] = field(default_factory=dict)  # what it and its commands are told besides

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self._log_path.read_text()

    @property
    def password(self) -> str:
        """The administrator's one-time password, from what `up` printed."""
        match = re.search(r"First sign-in: admin / (\S+)", self.log)
        assert match, self.log
        return match[1]

    def command(self) -> list[str]:
        """What stands for `manage.py`."""
        return ["manage.py"]

    def __enter__(self) -> "Served":
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._log_path = self.data_dir / "up.log"
        self._log_file = self._log_path.open("w")
        command = ["up", "--port", str(self.port), "--backend", self.backend, *self.options]
        self.process = subprocess.Popen(
            [sys.executable, *self.command(), *command, "--data-dir", str(self.data_dir)],
            cwd=ROOT,
            env={**environment(), **self.environ},
            stdout=self._log_file,
            stderr=subprocess.STDOUT,
        )
        if self.wait_ready:
            self.wait(lambda: self.get("/healthz").status_code == 200)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._log_file.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)

    def wait(self, condition, seconds: float = START_S) -> None:
        """Poll until `condition` holds. Fails with the log when it does not, or the process has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except httpx.HTTPError:
                pass
            assert self.process.poll() is None, self.log
            time.sleep(0.1)
        raise AssertionError(f"not within {seconds} s\n{self.log}")

    def get(self, path: str, **rest: object) -> httpx.Response:
        return httpx.get(self.url + path, timeout=30, trust_env=False, **rest)  # type: ignore[arg-type]

    def key(self, slug: str = "tester", *options: str) -> str:
        """A new key, as a user makes one; it works from its first request on."""
        return self.manage("agentkey", slug, "--create", *options).stdout.strip()

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a management command on this server's data."""
        return manage(*arguments, "--data-dir", str(self.data_dir), environ=self.environ)

    def post_task(self, token: str, prompt: str) -> str:
        """Ask, and have an answer; the task's id."""
        body = {"prompt": prompt}
        answer = httpx.post(
            self.url + "/control/v1/tasks", json=body, headers=bearer(token), timeout=60, trust_env=False
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def environment() -> dict[str, str]:
    """This process's, less what would point the child at the tests' own data."""
    return {k: v for k, v in os.environ.items() if k not in ("NARROWGAUGE_DATA_DIR", "DJANGO_SETTINGS_MODULE")}


def manage(
    *arguments: str, timeout: float = 120, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a management command; its output is kept."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**environment(), **(environ or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
