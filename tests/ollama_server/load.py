"""131 agents with three mixed requests each, against anything that speaks Ollama's API.

    python -m tests.ollama_server.load --url http://127.0.0.1:11434 [--mixed] [--door api|v1|both] [--keys FILE]
        [--stats-url URL-OF-THE-TEST-SERVER]

36/59/36 of the agents ask the three models, in shuffled order and with answers of mixed lengths; with --mixed each
asks its own model once and any of the three the other times. An agent sends its next request when the last one is
answered; every answer must come whole, from the model that was asked, to the question that was sent. Prints one JSON
object. `tests/acceptance/test_black_box.py` holds the product against it.
"""

import argparse
import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.ollama_server.wire import prompt_mark

# Answer lengths that keep the whole near door.md's workload: about 23 s at speed 20 if nothing were wasted.
MODELS = {"deepseek-r1:8b": (36, 80), "qwen2.5-coder:7b": (59, 80), "tinyllama": (36, 60)}  # agents, tokens


@dataclass(frozen=True)
class Asked:
    model: str
    prompt: str
    tokens: int
    door: str = "api"  # api: /api/chat, v1: /v1/chat/completions; both streamed


@dataclass(frozen=True)
class Outcome:
    model: str
    seconds: float
    problem: str  # "" = the right model answered the right prompt in full


def plan(
    agents: int = 131, each: int = 3, seed: int = 1, *, mixed: bool = False, doors: Sequence[str] = ("api",)
) -> list[list[Asked]]:
    """What every agent asks, the same for one seed."""
    dice = random.Random(seed)
    models = [model for model, (share, _) in MODELS.items() for _ in range(share)]
    dice.shuffle(models)
    plans = []
    for agent in range(agents):
        own = models[agent % len(models)]
        asked = [own] + [dice.choice(list(MODELS)) if mixed else own for _ in range(each - 1)]
        dice.shuffle(asked)
        plans.append([_asked(agent, i, model, dice, doors) for i, model in enumerate(asked)])
    return plans


def _asked(agent: int, question: int, model: str, dice: random.Random, doors: Sequence[str]) -> Asked:
    prompt = f"agent {agent}, question {question}: in 500 words, " + "what does the log say? " * 10
    mean = MODELS[model][1]
    return Asked(model, prompt, dice.randint(mean // 2, mean + mean // 2), doors[agent % len(doors)])


async def run(url: str, plans: Sequence[Sequence[Asked]], keys: Sequence[str] = ()) -> tuple[float, list[Outcome]]:
    """Makespan in seconds and every request's outcome. All agents begin at once; `keys` go round over them."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    began_at = time.monotonic()
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        agents = [_agent(session, url, asked, keys[i % len(keys)] if keys else "") for i, asked in enumerate(plans)]
        outcomes = await asyncio.gather(*agents)
    return time.monotonic() - began_at, [outcome for one in outcomes for outcome in one]


async def _agent(session: aiohttp.ClientSession, url: str, questions: Sequence[Asked], key: str) -> list[Outcome]:
    return [await _ask(session, url, asked, key) for asked in questions]


async def _ask(session: aiohttp.ClientSession, url: str, asked: Asked, key: str) -> Outcome:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    path, limit = (
        ("/api/chat", {"options": {"num_predict": asked.tokens}})
        if asked.door == "api"
        else ("/v1/chat/completions", {"max_tokens": asked.tokens, "stream": True})
    )
    body = {"model": asked.model, "messages": [{"role": "user", "content": asked.prompt}], **limit}
    began_at = time.monotonic()
    lines: list[bytes] = []
    try:
        async with session.post(url + path, json=body, headers=headers) as response:
            async for line in response.content:
                lines.append(line)
        problem = _problem(asked, *(_read_api(lines) if asked.door == "api" else _read_v1(lines)))
    except (aiohttp.ClientError, ValueError, LookupError) as error:
        problem = f"not answered: {error!r} {lines[-1:]!r}"
    return Outcome(asked.model, time.monotonic() - began_at, problem)


def _read_api(lines: Sequence[bytes]) -> tuple[str, bool, str]:
    """(text, whether it came to its end, what stands in its place if not)."""
    items = [json.loads(line) for line in lines]
    text = "".join((item.get("message") or {}).get("content", "") for item in items)
    ends = [item for item in items if item.get("done")]
    return text, len(ends) == 1 and items[-1] is ends[0], str(items[-1:])


def _read_v1(lines: Sequence[bytes]) -> tuple[str, bool, str]:
    data = [line[6:].strip() for line in lines if line.startswith(b"data: ")]
    chunks = [json.loads(item) for item in data if item != b"[DONE]"]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    ends = [choice for choice in choices if choice["finish_reason"]]
    return text, len(ends) == 1 and data[-1:] == [b"[DONE]"] and data.count(b"[DONE]") == 1, str(lines[-2:])


def _problem(asked: Asked, text: str, whole: bool, last: str) -> str:
    """ "" = the right model answered the right question once and in full."""
    if not whole:
        return f"not answered: {last}"
    if not text.startswith(f"[stub answer from {asked.model} to {prompt_mark(asked.prompt)}]"):
        return f"answered by another: {text[:80]}"
    return "" if text.count("[stub answer") == 1 else f"answered twice: {text[:200]}"


def summary(makespan_s: float, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Makespan, and per model the mean and the 95th percentile of the response time, seconds."""
    times = defaultdict(list)
    for outcome in outcomes:
        times[outcome.model].append(outcome.seconds)
    return {
        "requests": len(outcomes),
        "problems": [outcome.problem for outcome in outcomes if outcome.problem],
        "makespan_s": round(makespan_s, 2),
        "models": {
            model: {"n": len(all_s), "mean_s": round(sum(all_s) / len(all_s), 2), "p95_s": round(_p95(all_s), 2)}
            for model, all_s in sorted(times.items())
        },
    }


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[min(len(values) - 1, int(0.95 * len(values)))]


async def _main(arguments: argparse.Namespace) -> None:
    doors = ("api", "v1") if arguments.door == "both" else (arguments.door,)
    plans = plan(arguments.agents, arguments.each, arguments.seed, mixed=arguments.mixed, doors=doors)
    keys = arguments.keys.read_text().split() if arguments.keys else [arguments.key] if arguments.key else []
    result = summary(*await run(arguments.url.rstrip("/"), plans, keys))
    if arguments.stats_url:
        async with aiohttp.ClientSession() as session, session.get(f"{arguments.stats_url}/stats") as answer:
            result["server"] = await answer.json()
    print(json.dumps(result, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.ollama_server.load", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--key", default="", help="one bearer key for all agents")
    parser.add_argument("--keys", type=Path, metavar="FILE", help="bearer keys, one a line, gone round over the agents")
    parser.add_argument("--stats-url", default="", help="the test server's own address, for its counters")
    parser.add_argument("--agents", type=int, default=131)
    parser.add_argument("--each", type=int, default=3, help="requests an agent makes, one after the other")
    parser.add_argument("--mixed", action="store_true", help="agents ask other models than their own too")
    parser.add_argument("--door", choices=("api", "v1", "both"), default="api", help="which protocol agents speak")
    parser.add_argument("--seed", type=int, default=1)
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
