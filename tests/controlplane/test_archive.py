"""What is taken for a backup, and what is not. The commands themselves: tests/acceptance/test_stored_state.py."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from controlplane import archive
from optimizer.core.errors import ConfigurationError


def database(file: Path, table: str) -> Path:
    with closing(sqlite3.connect(file)) as made:
        made.execute(f"CREATE TABLE {table} (name)")
        made.executemany(f"INSERT INTO {table} VALUES (?)", [("x" * 100,)] * 1000)
        made.commit()
    return file


def test_a_whole_file_with_our_tables_is_one(tmp_path):
    archive.check(database(tmp_path / "good", "controlplane_agent"))


def test_what_is_not_there_no_database_anothers_or_torn_is_none(tmp_path):
    (tmp_path / "text").write_text("no database " * 500)
    database(tmp_path / "others", "something")
    whole = database(tmp_path / "whole", "controlplane_agent").read_bytes()
    (tmp_path / "torn").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "directory").mkdir()
    for name in ("absent", "text", "others", "torn", "directory"):
        with pytest.raises(ConfigurationError, match="no backup of Narrowgauge"):
            archive.check(tmp_path / name)


def test_a_backup_overwrites_nothing(tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ConfigurationError, match="exists already"):
        archive.save(tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"
