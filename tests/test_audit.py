"""The dependency audit of CI: a finding fails, and "nothing found" is said only of what was looked up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOUND = {"name": "django", "version": "5.2", "vulns": []}
HOLED = {"name": "daphne", "version": "4", "vulns": [{"id": "CVE-1", "fix_versions": ["4.1"]}]}
UNKNOWN = {"name": "private", "skip_reason": "Dependency not found"}


def audit(directory: Path, said: str, complaint: str = "", status: int = 0) -> subprocess.CompletedProcess[str]:
    """Run it with a pip-audit that says this."""
    stand_in = directory / "pip-audit"
    stand_in.write_text(
        f"#!{sys.executable}\nimport sys\nprint({said!r})\nprint({complaint!r}, file=sys.stderr)\nsys.exit({status})\n"
    )
    stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}
    command = [sys.executable, ROOT / ".ci" / "audit"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def report(*packages: dict) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_a_finding_fails_and_is_named(tmp_path):
    ran = audit(tmp_path, report(SOUND, HOLED), status=1)
    assert ran.returncode == 1 and "daphne 4: CVE-1, fixed in 4.1" in ran.stderr


def test_no_finding_passes_and_says_what_was_not_looked_up(tmp_path):
    ran = audit(tmp_path, report(SOUND, UNKNOWN))
    assert ran.returncode == 0 and "1 packages audited, 0 known" in ran.stdout and "NOT audited" in ran.stdout
    assert "private" in ran.stdout


@pytest.mark.parametrize(
    ("said", "complaint", "status"),
    [
        (report(UNKNOWN, UNKNOWN), "No known vulnerabilities found", 0),
        ("", "ERROR:pip_audit._cli:Could not connect: ConnectionError: Max retries exceeded", 1),
    ],
)
def test_a_service_that_is_not_there_is_no_pass_and_no_failure(tmp_path, said, complaint, status):
    ran = audit(tmp_path, said, complaint, status)
    assert ran.returncode == 0 and "COULD NOT RUN" in ran.stdout and "vulnerabilities found" not in ran.stdout


def test_a_broken_pip_audit_fails(tmp_path):
    ran = audit(tmp_path, "", "usage: pip-audit: error: unrecognized arguments", 2)
    assert ran.returncode == 2 and "broke" in ran.stderr
