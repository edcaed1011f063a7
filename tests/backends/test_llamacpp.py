"""The embedded engine, with real models: the contract, and what a process per model promises."""

import asyncio
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from optimizer import model_files
from optimizer.backends.llamacpp import LlamaCppBackend
from optimizer.backends.llamacpp_models import (
    EMBEDDED_CATALOGUE,
    EMBEDDED_FILES,
    EMBEDDED_MEMORY_MB,
    EMBEDDED_MODELS,
    SMOLLM2_FILE,
)
from optimizer.core.errors import (
    BackendUnavailable,
    ContextOverflow,
    GenerationFailed,
    InvalidRequest,
    LoadFailed,
    ModelFileMissing,
    UnsupportedFeature,
)
from optimizer.core.request import Message
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import ModelSpec, Residency, rank
from optimizer.ports import Backend, Call, Delta, Finished
from tests.backends.contract import LONG, WedgeContract, call, finish, running

MODELS_DIR = model_files.default_models_dir()
SMOL, GEMMA, GEMMA_8K = EMBEDDED_MODELS
PATIENCE_S = 60.0


@pytest.fixture(scope="session")
def models_dir() -> Path:
    absent = model_files.missing(EMBEDDED_FILES, MODELS_DIR)
    if absent:
        pytest.fail(f"{', '.join(file.name for file in absent)} not in {MODELS_DIR}: run `manage.py pull`")
    return MODELS_DIR


@pytest.fixture
async def backend(models_dir: Path) -> AsyncIterator[LlamaCppBackend]:
    backend = LlamaCppBackend(models_dir, probe_timeout_s=3.0)
    await backend.start()
    yield backend
    await backend.close()


@pytest.mark.slow
class TestLlamaCppContract(WedgeContract):
    patience_s = PATIENCE_S

    @pytest.fixture
    async def backend(self, models_dir: Path) -> AsyncIterator[LlamaCppBackend]:
        backend = LlamaCppBackend(models_dir, probe_timeout_s=3.0)
        await backend.start()
        yield backend
        await backend.close()

    @pytest.fixture
    def spec(self) -> ModelSpec:
        return SMOL

    async def wedge(self, backend: Backend) -> None:
        freeze(child_pid())


def children() -> list[int]:
    """Pids of this process's own children, dead ones that nobody waited for included."""
    columns = ["-o", "pid=", "-o", "ppid=", "-o", "command="]
    # -ww: never cut to the width of a terminal, which COLUMNS may say even where there is none.
    listed = subprocess.run(["ps", "-A", "-ww", *columns], capture_output=True, text=True, check=True)
    rows = (line.split(maxsplit=2) for line in listed.stdout.splitlines())
    return [int(row[0]) for row in rows if int(row[1]) == os.getpid() and "llamacpp_child" in row[-1]]


def child_pid() -> int:
    (pid,) = children()
    return pid


def freeze(pid: int) -> None:
    """Alive, holds its memory, does nothing: returns when every thread of the child stands still."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + PATIENCE_S  # a busy machine takes a while, and an answer could slip out
    while os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT | os.WNOHANG) is None:
        assert time.monotonic() < deadline


def exists(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def answer(backend: LlamaCppBackend, one: Call) -> str:
    return "".join([item.text async for item in backend.generate(one) if isinstance(item, Delta)])


# --- the catalogue ------------------------------------------------------------------------------


def test_the_three_tiers_compete_for_the_budget() -> None:
    usable_mb = replace(Thresholds(), gpu_memory_mb=EMBEDDED_MEMORY_MB).usable_mb
    small, middle, large = (EMBEDDED_CATALOGUE.model_of(tier).footprint_mb for tier in ("default", "sonnet", "opus"))
    assert small + large <= usable_mb and small + middle <= usable_mb
    assert middle + large > usable_mb
    assert [spec.residency for spec in EMBEDDED_MODELS] == list(Residency)
    assert [rank(spec.tier) for spec in EMBEDDED_MODELS] == [0, 1, 2]


# --- memory and processes -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("spec", EMBEDDED_MODELS, ids=lambda spec: spec.name)
async def test_declared_figures_are_the_measured_ones(backend: LlamaCppBackend, spec: ModelSpec) -> None:
    report = await backend.load(spec)
    assert report.footprint_mb == pytest.approx(spec.footprint_mb, rel=0.15)
    assert report.vram_mb == report.footprint_mb
    await answer(backend, Call(spec.name, (Message("user", LONG),), {"num_predict": 64}, format="json"))
    if spec.embeds:
        await backend.embed(spec.name, ["a text that is longer than one step " * 20], {})
    (resident,) = await backend.residents()
    # Constrained output allocates for each word of the vocabulary; what the allocator keeps of that varies by 12 %.
    assert resident.footprint_mb == pytest.approx(report.footprint_mb, rel=0.15)  # work takes no more than said


@pytest.mark.slow
async def test_an_evicted_model_gives_its_memory_back(backend: LlamaCppBackend) -> None:
    await backend.load(SMOL)
    pid = child_pid()
    await backend.evict(SMOL.name)
    assert not exists(pid) and children() == []
    assert await backend.residents() == []


@pytest.mark.slow
async def test_two_models_run_at_once_in_two_processes(backend: LlamaCppBackend) -> None:
    await asyncio.gather(backend.load(SMOL), backend.load(GEMMA))
    assert len(children()) == 2
    async with running(backend, SMOL, PATIENCE_S), running(backend, GEMMA, PATIENCE_S):
        pass
    await backend.evict(GEMMA.name)
    assert [resident.model for resident in await backend.residents()] == [SMOL.name]


@pytest.mark.slow
async def test_a_killed_child_fails_its_run_and_is_seen_to_be_gone(backend: LlamaCppBackend) -> None:
    await backend.load(SMOL)
    items = backend.generate(call(SMOL, LONG, 2000))
    assert isinstance(await anext(items), Delta)
    os.kill(child_pid(), signal.SIGKILL)
    with pytest.raises(GenerationFailed, match=r"smollm2:135m broke off: .*SIGKILL"):
        async with asyncio.timeout(PATIENCE_S):
            async for _ in items:
                pass
    assert await backend.residents() == []
    with pytest.raises(BackendUnavailable, match="SIGKILL"):
        await backend.probe(SMOL.name)
    with pytest.raises(GenerationFailed, match="gone"):
        await finish(backend.generate(call(SMOL, "hello", 4)))
    await backend.recover()
    assert children() == []
    await backend.load(SMOL)
    assert (await finish(backend.generate(call(SMOL, LONG, 4)))).output_tokens == 4


@pytest.mark.slow
async def test_close_ends_every_child(models_dir: Path) -> None:
    backend = LlamaCppBackend(models_dir)
    await backend.start()
    await asyncio.gather(backend.load(SMOL), backend.load(GEMMA))
    pids = children()
    await backend.close()
    assert len(pids) == 2 and not any(exists(pid) for pid in pids)


@pytest.mark.slow
async def test_a_cancelled_load_leaves_no_child(backend: LlamaCppBackend) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):  # it has started and needs longer
            await backend.load(GEMMA_8K)
    assert children() == [] and await backend.residents() == []


@pytest.mark.slow
def test_a_killed_parent_leaves_no_orphan(models_dir: Path) -> None:
    program = textwrap.dedent(
        """
        import asyncio, pathlib, sys
        from optimizer.backends.llamacpp import LlamaCppBackend
        from optimizer.backends.llamacpp_models import EMBEDDED_MODELS
        async def main():
            backend = LlamaCppBackend(pathlib.Path(sys.argv[1]))
            await backend.start()
            await backend.load(EMBEDDED_MODELS[0])
            print(backend._loaded["smollm2:135m"].child.pid, flush=True)
            await asyncio.Event().wait()
        asyncio.run(main())
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(models_dir)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert exists(pid)
        parent.kill()
    assert ended_within(pid, 10.0)


def ended_within(pid: int, patience_s: float) -> bool:
    """Nothing reports the end of another's child, so it is looked at until then."""
    until = time.monotonic() + patience_s
    while time.monotonic() < until:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
        if not state.stdout.strip() or state.stdout.startswith("Z"):  # a zombie holds no memory
            return True
    return False


# --- generation ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("spec", EMBEDDED_MODELS, ids=lambda spec: spec.name)
async def test_answers_look_like_a_chat(backend: LlamaCppBackend, spec: ModelSpec) -> None:
    await backend.load(spec)
    options = {"num_predict": 80, "temperature": 0, "repeat_penalty": 1.1}
    question = Call(spec.name, (Message("user", "List three fruits."),), options)
    text = await answer(backend, question)
    assert text and text == text.lstrip()
    assert "User:" not in text and "<|im" not in text
    assert any(fruit in text.lower() for fruit in ("apple", "banana", "mango", "orange", "fruit"))


@pytest.mark.slow
async def test_two_streams_at_once_stay_apart(backend: LlamaCppBackend) -> None:
    await backend.load(SMOL)
    options = {"num_predict": 24, "temperature": 0}
    calls = [
        Call(SMOL.name, (Message("user", text),), options, slot=slot)
        for slot, text in enumerate(("Write about the sea.", "Write about bread."))
    ]
    alone = [await answer(backend, one) for one in calls]
    together = await asyncio.gather(*(answer(backend, one) for one in calls))
    # Batching two streams changes the order of sums, so late words may differ; the subject may not.
    assert [text.split()[:3] for text in together] == [text.split()[:3] for text in alone]
    assert together[0] != together[1]


@pytest.mark.slow
async def test_a_cancelled_stream_stops_the_server(backend: LlamaCppBackend) -> None:
    await backend.load(SMOL)
    async with running(backend, SMOL, PATIENCE_S):
        pass
    assert await busy_slots(backend) == set()


@pytest.mark.slow
async def test_a_run_cancelled_in_its_prompt_frees_the_slot_too(backend: LlamaCppBackend) -> None:
    await backend.load(SMOL)
    items = backend.generate(call(SMOL, "one two three four five six " * 250, 2000))
    task = asyncio.create_task(anext(items))
    async with asyncio.timeout(PATIENCE_S):
        while not await busy_slots(backend):
            pass
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await busy_slots(backend) == set()


async def busy_slots(backend: LlamaCppBackend) -> set[int]:
    return await backend._processing(backend._loaded[SMOL.name])


@pytest.mark.slow
async def test_a_wedge_is_found_while_both_slots_are_taken(backend: LlamaCppBackend) -> None:
    await backend.load(SMOL)
    stuck = [asyncio.create_task(finish(backend.generate(call(SMOL, LONG, 2000)))) for _ in range(2)]
    async with asyncio.timeout(PATIENCE_S):
        while len(await busy_slots(backend)) < 2:
            pass
        await backend.probe(SMOL.name)  # busy is not wedged
        freeze(child_pid())
        with pytest.raises(BackendUnavailable):
            await backend.probe(SMOL.name)
        await backend.recover()
        for result in await asyncio.gather(*stuck, return_exceptions=True):
            assert isinstance(result, GenerationFailed)
    assert await backend.residents() == [] and children() == []


@pytest.mark.slow
async def test_a_prefix_stays_warm_in_its_slot(backend: LlamaCppBackend) -> None:
    await backend.load(GEMMA)
    text = "The train stops at every village of the valley. " * 40
    first = await finish(backend.generate(replace(call(GEMMA, text + "Why?", 4), slot=1)))
    again = await finish(backend.generate(replace(call(GEMMA, text + "When?", 4), slot=1)))
    assert again.prompt_tokens == pytest.approx(first.prompt_tokens, abs=2)
    assert again.prefill_s < first.prefill_s / 3


@pytest.mark.slow
async def test_options_reach_the_model(backend: LlamaCppBackend) -> None:
    await backend.load(SMOL)
    seeded = [replace(call(SMOL, LONG, 16), options={"num_predict": 16, "temperature": 1.5, "seed": n}) for n in (1, 2)]
    assert await answer(backend, seeded[0]) != await answer(backend, seeded[1])
    stopping = call(SMOL, "Count: one, two, three.", 0)
    options = {"num_predict": 60, "temperature": 0, "stop": ["a", "e", "i", "o", "u"]}
    (*_, finished) = [item async for item in backend.generate(replace(stopping, options=options))]
    assert isinstance(finished, Finished) and finished.done_reason == "stop"


@pytest.mark.slow
@pytest.mark.parametrize("raw", [False, True])
async def test_a_schema_binds_the_answer(backend: LlamaCppBackend, raw: bool) -> None:
    await backend.load(SMOL)
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    text = await answer(backend, replace(call(SMOL, "Describe a person.", 80), format=schema, raw=raw))
    assert set(json.loads(text)) == {"name", "age"}


@pytest.mark.slow
async def test_raw_prompts_skip_the_template(backend: LlamaCppBackend) -> None:
    await backend.load(SMOL)
    plain = await finish(backend.generate(replace(call(SMOL, "The sky is", 4), raw=True)))
    chat = await finish(backend.generate(call(SMOL, "The sky is", 4)))
    assert (plain.output_tokens, plain.done_reason) == (4, "length")
    assert plain.prompt_tokens < 6 < chat.prompt_tokens


@pytest.mark.slow
async def test_what_it_cannot_do_is_refused_in_words(backend: LlamaCppBackend) -> None:
    await backend.load(SMOL)
    one = call(SMOL, "hello", 4)
    for bad, word in (
        (replace(one, tools=({"type": "function"},)), "tools"),
        (replace(one, think=True), "thinking"),
        (replace(one, suffix="end"), "insert"),
        (replace(one, messages=(Message("user", "look", images=("aGk=",)),)), "images"),
    ):
        with pytest.raises(UnsupportedFeature, match=word):
            await finish(backend.generate(bad))
    with pytest.raises(ContextOverflow, match="window"):
        await finish(backend.generate(call(SMOL, "word " * 5000, 4)))
    with pytest.raises(InvalidRequest):
        await finish(backend.generate(replace(one, format={"type": "no such type"})))
    assert (await finish(backend.generate(call(SMOL, "lone \ud800 surrogate", 4)))).output_tokens > 0


@pytest.mark.slow
async def test_embeddings_are_unit_vectors_and_gemma_refuses(backend: LlamaCppBackend) -> None:
    await backend.load(SMOL)
    embedded = await backend.embed(SMOL.name, ["short", "a long text " * 60], {})
    assert all(math.hypot(*vector) == pytest.approx(1.0, abs=1e-3) for vector in embedded.vectors)
    with pytest.raises(ContextOverflow):
        await backend.embed(SMOL.name, ["word " * 5000], {})
    await backend.load(GEMMA)
    with pytest.raises(UnsupportedFeature, match="gemma3:270m does not support embeddings"):
        await backend.embed(GEMMA.name, ["x"], {})


# --- missing and broken files -------------------------------------------------------------------


async def test_without_any_file_it_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ModelFileMissing, match=r"manage\.py pull"):
        await LlamaCppBackend(tmp_path).start()


@pytest.fixture
def broken_dir(tmp_path: Path) -> Iterator[Path]:
    """SmolLM2's file, right size, wrong content; gemma's is missing."""
    with (tmp_path / SMOLLM2_FILE.name).open("wb") as stream:
        stream.truncate(SMOLLM2_FILE.size_bytes)  # a sparse file
    yield tmp_path


@pytest.mark.slow
async def test_a_missing_or_broken_file_fails_the_load_with_the_reason(broken_dir: Path) -> None:
    backend = LlamaCppBackend(broken_dir)
    await backend.start()
    assert [info.name for info in await backend.models()] == [SMOL.name]
    with pytest.raises(ModelFileMissing, match=r"gemma3:270m needs .* run `manage\.py pull`"):
        await backend.load(GEMMA)
    with pytest.raises(LoadFailed, match=r"smollm2:135m could not be loaded: .* it said: .*"):
        await backend.load(SMOL)
    assert children() == []
    await backend.close()
