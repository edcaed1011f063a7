"""What callers see of an answer: that of a flight, of the cache, or a share of a combined one.

Rule: they all look alike: begun, said, completed. Must not know: how an answer is delivered.
"""

from dataclasses import replace

from optimizer.combiner import Part
from optimizer.core import templates
from optimizer.core.caching import Hit
from optimizer.core.request import Decision
from optimizer.flight import Flight
from optimizer.pipeline import Routed
from optimizer.ports import Completed, Delta, Finished, Reply, Started


def begun(flight: Flight, joined: bool, arrived: float, simulated: bool) -> Started:
    """A generation's start as one follower sees it, who arrived at `arrived` on the runner's clock."""
    shaped = flight.shaped
    started = flight.started if flight.started is not None else arrived
    return Started(
        model=shaped.call.model,
        tier=shaped.routed.selection.tier,
        complexity=shaped.routed.selection.complexity,
        cache="coalesced" if joined else ("off" if shaped.routed.cache == "off" else "miss"),
        queue_s=max(0.0, started - arrived),
        load_s=flight.load_s,
        tokens_saved=max(0, shaped.tokens_original - shaped.tokens_sent),
        decisions=shaped.decisions,
        simulated=simulated,
    )


def whole(flight: Flight, finished: Finished, now: float) -> Completed:
    """A generation's answer."""
    deltas = [item for item in flight.items if isinstance(item, Delta)]
    return Completed(
        text="".join(d.text for d in deltas),
        thinking="".join(d.thinking for d in deltas),
        tool_calls=tuple(call for d in deltas for call in d.tool_calls),
        done_reason=finished.done_reason,
        prompt_tokens=finished.prompt_tokens,
        output_tokens=finished.output_tokens,
        load_s=flight.load_s,
        prefill_s=finished.prefill_s,
        decode_s=finished.decode_s,
        total_s=now - flight.arrived,
        decisions=flight.shaped.decisions,
        vectors=flight.vectors,
    )


def from_cache(routed: Routed, hit: Hit, simulated: bool) -> list[Reply]:
    """A cached answer as a caller sees any answer."""
    entry = hit.entry
    decisions = (*routed.decisions, Decision("cache", f"{hit.kind} hit", hit.reason, hit.values()))
    started = Started(
        model=routed.model,
        tier=routed.selection.tier,
        complexity=routed.selection.complexity,
        cache=hit.kind,
        queue_s=0.0,
        load_s=0.0,
        tokens_saved=entry.prompt_tokens + entry.output_tokens,
        decisions=decisions,
        simulated=simulated,
    )
    completed = Completed(
        text=entry.text,
        thinking=entry.thinking,
        tool_calls=(),
        done_reason=entry.done_reason,
        prompt_tokens=entry.prompt_tokens,
        output_tokens=entry.output_tokens,
        load_s=0.0,
        prefill_s=0.0,
        decode_s=0.0,
        total_s=0.0,
        decisions=decisions,
    )
    task = routed.request.task
    if task.template:
        completed = templated(completed, task.template, task.language)
    return [started, Delta(completed.text, completed.thinking), completed]


def from_part(routed: Routed, part: Part) -> list[Reply]:
    """A member's share of a combined answer."""
    reason = f"answered together with {part.members - 1} similar questions, its part verified"
    decisions = (*routed.decisions, Decision("batching", "combined", reason, {"members": part.members}))
    started = replace(part.started, decisions=decisions, cache="miss")
    completed = replace(part.completed, decisions=decisions)
    task = routed.request.task
    if task.template:
        completed = templated(completed, task.template, task.language)
    return [started, Delta(completed.text), completed]


def templated(completed: Completed, template: str, language: str) -> Completed:
    """The answer put into a template; needs the whole answer."""
    text = templates.apply(template, completed.text, language=language)
    decision = Decision("template", template, f"answer put into the {template} template")
    return replace(completed, text=text, decisions=(*completed.decisions, decision))
