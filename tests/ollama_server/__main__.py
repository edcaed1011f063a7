"""`python -m tests.ollama_server --port N --speed 20`: serve until interrupted."""

import argparse
import asyncio
import signal

from tests.ollama_server.server import OllamaServer


async def _serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = OllamaServer(
        port=arguments.port,
        speed=arguments.speed,
        slots=arguments.slots,
        vram_mb=arguments.vram_mb,
        max_queue=arguments.max_queue,
    )
    async with server:
        print(
            f"Ollama's rules on a modelled machine, no model runs: {server.url} at speed {arguments.speed:g}",
            flush=True,
        )
        await stop.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.ollama_server", description=__doc__)
    parser.add_argument("--port", type=int, default=11434, help="0 picks a free one")
    parser.add_argument("--speed", type=float, default=1.0, help="how many times faster than the modelled machine")
    parser.add_argument("--slots", type=int, default=2, help="OLLAMA_NUM_PARALLEL: runs at once per model")
    parser.add_argument("--vram-mb", type=float, default=3686.0, help="memory that models may take")
    parser.add_argument("--max-queue", type=int, default=512, help="OLLAMA_MAX_QUEUE")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
