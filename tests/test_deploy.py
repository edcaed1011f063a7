"""The files that start the processes name commands and options that exist."""

import re
import shlex
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class

ROOT = Path(__file__).resolve().parents[1]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))


def commands() -> list[tuple[str, str]]:
    """(where it is written, the command line)."""
    found = [("Procfile", line.partition(": ")[2]) for line in (ROOT / "Procfile").read_text().splitlines()]
    for unit in UNITS:
        found += [(unit.name, line) for line in re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.M)]
    compose = (ROOT / "deploy" / "compose.yaml").read_text()
    for words in re.findall(r"^    command: \[(.*)\]$", compose, re.M):
        line = " ".join(re.findall(r'"([^"]*)"', words))
        if line.split()[0] in get_commands():
            found.append(("compose.yaml", f"manage.py {line}"))
    return found


@pytest.mark.parametrize(("where", "line"), commands(), ids=lambda value: value[:40])
def test_a_command_that_is_started_exists_with_its_options(where, line):
    words = shlex.split(line.replace("$PORT", "8000").replace("%i", "8000"))
    if "manage.py" not in words:
        assert words[0].endswith("celery") and words[1:3] == ["-A", "controlplane"], where
        assert words[3] in ("worker", "beat"), where
        return
    name, *options = words[words.index("manage.py") + 1 :]
    command = load_command_class(get_commands()[name], name)
    command.create_parser("manage.py", name).parse_args(options)  # exits on an unknown one


def test_every_kind_of_process_is_started_by_every_way():
    for where in ("Procfile", "compose.yaml"):
        text = " ".join(line for place, line in commands() if place == where)
        assert "web" in text and "engine" in text
    names = {unit.name for unit in UNITS}
    assert names == {f"narrowgauge-{kind}.service" for kind in ("web@", "engine", "worker", "beat")}
    target = (ROOT / "deploy" / "systemd" / "narrowgauge.target").read_text()
    assert all(unit.name.replace("@", "@8000") in target for unit in UNITS)
