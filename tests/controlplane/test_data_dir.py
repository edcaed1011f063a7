"""The data directory: heard before Django starts, made when needed, private."""

import stat
from pathlib import Path

import pytest

from controlplane import data_dir
from optimizer.core.errors import ConfigurationError


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.setenv(data_dir.ENV, "")


@pytest.mark.parametrize(
    ("argv", "rest", "directory"),
    [
        (["up", "--data-dir", "/srv/x", "--port", "1"], ["up", "--port", "1"], Path("/srv/x")),
        (["up", "--data-dir=/srv/x"], ["up"], Path("/srv/x")),
        (["up"], ["up"], data_dir.DEFAULT),
        (["up", "--data-dir"], ["up", "--data-dir"], data_dir.DEFAULT),
        (["up", "--data-dirs", "x"], ["up", "--data-dirs", "x"], data_dir.DEFAULT),
    ],
)
def test_the_command_line_is_heard(argv, rest, directory):
    assert data_dir.taken_from(argv) == rest
    assert data_dir.path() == directory


def test_the_secret_key_is_made_once_and_private(tmp_path):
    data_dir.use(tmp_path / "deep" / "data")
    key = data_dir.secret_key()
    assert len(key) >= 50
    assert data_dir.secret_key() == key
    file = data_dir.path() / data_dir.SECRET_KEY_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in data_dir.path().iterdir()] == [data_dir.SECRET_KEY_FILE]


def test_a_directory_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    data_dir.use(tmp_path / "file" / "data")
    with pytest.raises(ConfigurationError, match="cannot be made"):
        data_dir.prepare()
