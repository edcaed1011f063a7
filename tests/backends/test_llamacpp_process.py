"""A child's readiness and its log do not get into each other's way; what it said before its end is told."""

from collections.abc import Callable
from pathlib import Path

import pytest

from optimizer.backends import llamacpp_process
from optimizer.backends.llamacpp_process import Child
from optimizer.core.errors import LoadFailed

Program = Callable[[str], None]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Program:
    """Take this shell script for the child."""

    def take(script: str) -> None:
        path = tmp_path / "child"
        path.write_text(f"#!/bin/sh\nread -r settings\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(llamacpp_process.sys, "executable", str(path))

    return take


async def test_readiness_is_heard_between_the_pieces_of_a_log_line(program: Program) -> None:
    program(
        """
        printf 'half a ' >&2
        printf 'READY {"url": '
        printf 'line' >&2
        printf '"http://127.0.0.1:1"}\\n'
        printf '\\n' >&2
        exec cat
        """
    )
    child = await Child.start({})
    assert child.url == "http://127.0.0.1:1" and child.alive
    await child.stop()
    assert child.last_words() == "its process was ended by SIGKILL; it said: half a line"


async def test_a_child_that_ends_before_it_is_ready_says_why(program: Program) -> None:
    program("echo 'no such model' >&2; exit 3")
    with pytest.raises(LoadFailed, match=r"its process ended with status 3; it said: no such model"):
        await Child.start({})
