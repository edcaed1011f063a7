"""The child process of the embedded engine: llama.cpp's server for one model, on a loopback port.

    python -m optimizer.backends.llamacpp_child < settings.json (one line, then stdin stays open)

Rule: it lives exactly as long as its parent: it ends when stdin closes, and on Linux the kernel kills it with
its parent. It says one line on standard output, `READY {"url": ...}`, when the model is loaded; everything else that it
prints, by whatever library, is log and goes to standard error.
Must not know: tiers, slots' owners, or why it was started.
"""

import ctypes
import json
import os
import signal
import sys
import threading
from typing import Any

import xllamacpp

READY = b"READY "
BATCH_TOKENS = 64  # prompt tokens per step: bounds how long a prompt holds up the other slot, and a cancel
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    said = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    settings = json.loads(sys.stdin.buffer.readline())
    _die_with_parent(settings["parent_pid"])
    threading.Thread(target=_exit_at_end_of_stdin, daemon=True).start()
    server = xllamacpp.Server(parameters(settings))
    os.write(said, READY + json.dumps({"url": server.listening_address}).encode() + b"\n")
    threading.Event().wait()


def parameters(settings: dict[str, Any]) -> Any:
    """llama.cpp's parameters for the settings that `llamacpp_process.Child` sends."""
    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.model_alias = {settings["model"]}
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["context_window"] * settings["slots"]  # shared out evenly over the slots
    params.n_batch = params.n_ubatch = BATCH_TOKENS
    # Threads that wait must not spin: on a busy 2-core machine that costs a factor of ten (wire.md, 16).
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = settings["threads"]
        threads.poll = 0
    params.n_threads_http = settings["slots"] + 2
    params.n_gpu_layers = 0
    params.fit_params = False  # the window is pinned, never shrunk to fit
    params.cache_prompt = True
    params.cache_ram_mib = 0  # prefixes live in the slots; a second cache would be memory nobody counts
    params.n_ctx_checkpoints = 0
    params.swa_full = True  # keeps whole prefixes reusable for models with a sliding window
    params.embedding = settings["embeddings"]
    # The last token has seen the whole text in these causal models; the only pooling that splits long inputs.
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST
    if settings["chat_template"]:
        params.chat_template = settings["chat_template"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [settings["api_key"]]  # other users of this machine cannot use our slots
    params.ui = False
    params.endpoint_slots = True
    params.verbosity = 2  # errors and warnings
    return params


def _die_with_parent(parent_pid: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the line above
        os._exit(0)


def _exit_at_end_of_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)  # nothing to save; the memory goes back at once


if __name__ == "__main__":
    main()
