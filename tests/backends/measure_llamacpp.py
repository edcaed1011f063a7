"""Measures the embedded engine on this machine: `python -m tests.backends.measure_llamacpp [--models-dir DIR]`.

Rule: it drives the backend through its port only, one model in memory at a time. docs/embedded-engine.md keeps a
run of it.
"""

import argparse
import asyncio
import os
import time
from pathlib import Path

from optimizer import model_files
from optimizer.backends.llamacpp import LlamaCppBackend
from optimizer.backends.llamacpp_models import EMBEDDED_MODELS
from optimizer.core.request import Message
from optimizer.core.tiers import ModelSpec
from optimizer.ports import Call, Finished

ANSWER_TOKENS = 128
PROMPT = "The narrow train runs through the long valley and stops at every small village on its way. " * 24


async def one_stream(backend: LlamaCppBackend, spec: ModelSpec, slot: int, salt: str) -> tuple[Finished, float]:
    """A generation of fixed length with a prompt that no slot has seen; its figures and its whole seconds."""
    options = {"num_predict": ANSWER_TOKENS, "temperature": 0}
    prompt = f"{salt}. {PROMPT}"  # a text that repeats is continued without end
    call = Call(spec.name, (Message("user", prompt),), options, raw=True, slot=slot)
    began_at = time.monotonic()
    items = [item async for item in backend.generate(call)]
    assert isinstance(items[-1], Finished) and items[-1].output_tokens == ANSWER_TOKENS
    return items[-1], time.monotonic() - began_at


async def measure(directory: Path) -> None:
    backend = LlamaCppBackend(directory)
    await backend.start()
    print(f"{os.cpu_count()} cores, load average before: {os.getloadavg()[0]:.2f}")
    print("model             load s  footprint MB  after MB  prefill t/s  decode t/s  2 streams: each  sum t/s")
    try:
        for spec in EMBEDDED_MODELS:
            loads = []
            for _ in range(3):
                await backend.evict(spec.name)
                loads.append(await backend.load(spec))
            load_s = sorted(report.load_s for report in loads)[1]
            alone, _ = await one_stream(backend, spec, 0, "alone")
            pair = await asyncio.gather(*(one_stream(backend, spec, slot, f"pair {slot}") for slot in (0, 1)))
            each = [finished.output_tokens / finished.decode_s for finished, _ in pair]
            total = sum(finished.output_tokens for finished, _ in pair) / max(f.decode_s for f, _ in pair)
            after = (await backend.residents())[0].footprint_mb
            print(
                f"{spec.name:16} {load_s:7.2f} {loads[-1].footprint_mb:13.0f} {after:9.0f} "
                f"{alone.prompt_tokens / alone.prefill_s:12.0f} {alone.output_tokens / alone.decode_s:11.1f} "
                f"{min(each):16.1f} {total:8.1f}"
            )
            await backend.evict(spec.name)
    finally:
        await backend.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models-dir", type=Path, default=model_files.default_models_dir())
    asyncio.run(measure(parser.parse_args().models_dir))
