"""One request, straight through the policies: selection, generation, cache key, context, compression.

Rule: `route` decides what the answer depends on, `look_up` may end the request right there, and only `shape`
does the work a model needs (so a cache hit pays for none of it). Every stage leaves a Decision.
The numbers follow "One request, straight through" in DESIGN.md; selection comes before context because the
window belongs to the chosen model.
Vectors of a slow embedder are fetched outside: `look_up` and `shape` raise NotPrepared until they are at hand
(`embedders.prepared`); the default embedder never does.
Must not know: the scheduler, the backend, HTTP, or any storage.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

from optimizer.core import caching, compression, context, generation, templates, truncation
from optimizer.core.caching import CacheEntry, Hit, ResponseCache
from optimizer.core.errors import ContextOverflow, InvalidRequest, ModelNotFound, UnsupportedFeature
from optimizer.core.generation import Parameters
from optimizer.core.job import Job
from optimizer.core.lengths import Lengths
from optimizer.core.request import AUTO, AgentProfile, CacheMode, Decision, Kind, Message, Request, Task
from optimizer.core.selection import Selection, Selector
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import DEFAULT, Catalogue, rank
from optimizer.ports import Call, Completed, Embedder, NotPrepared, TokenCounter

IMAGE_TOKENS = 600  # what one image costs a small vision model's window, roughly; counted so that it is not free
ANSWER_SHARE = 0.2  # the part of the window kept for the answer: what context_fill 0.8 leaves
CONVERSATIONS = 10_000  # conversations whose tier is remembered, the least recent dropped first
UNLIMITED = 1 << 30


@dataclass(frozen=True, slots=True)
class Routed:
    """What the answer depends on: model, parameters and the keys made of them."""

    request: Request
    agent: AgentProfile
    selection: Selection
    parameters: Parameters
    key: str
    partition: str
    question: str
    cache: CacheMode
    decisions: tuple[Decision, ...]

    @property
    def model(self) -> str:
        return self.selection.spec.name


@dataclass(frozen=True, slots=True)
class Shaped:
    """Ready for the scheduler and the backend."""

    routed: Routed
    call: Call
    job: Job
    tokens_original: int
    tokens_sent: int
    decisions: tuple[Decision, ...] = field(default=())


class Pipeline:
    """The policies put together, with the little memory they need between requests."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        thresholds: Thresholds,
        count: TokenCounter,
        embed: Embedder | None,
        embed_at_once: Embedder | None = None,
        realm: str = "",
    ) -> None:
        """`realm` (the backend's name) keeps its answers apart from another backend's in the cache.

        `embed_at_once` never raises NotPrepared: it rates the lines of a text that is cut, and stands in where
        `embed` fails. None: `embed` itself.
        """
        self.catalogue = catalogue
        self.thresholds = thresholds
        self.count = count
        self.embed = embed
        self._embed_at_once = embed_at_once or embed
        self.realm = realm
        self.selector = Selector()
        self.lengths = Lengths()
        self.cache = ResponseCache(thresholds.cache_max_entries, thresholds.cache_ttl_s)
        self._conversations: OrderedDict[str, str] = OrderedDict()  # conversation -> tier

    def reconfigure(self, *, catalogue: Catalogue, thresholds: Thresholds) -> None:
        """New tiers, models or thresholds take effect with the next request."""
        self.catalogue = catalogue
        self.thresholds = thresholds
        self.cache.resize(thresholds.cache_max_entries, thresholds.cache_ttl_s)

    # 1-4: what the answer depends on ------------------------------------------------------------

    def route(
        self, request: Request, agent: AgentProfile, wait_s: Callable[[str], float], resident: Collection[str] = ()
    ) -> Routed:
        """Choose model and parameters. `wait_s(model)` predicts the wait for a model's next start, seconds.

        Raises ModelNotFound, UnsupportedFeature or InvalidRequest (the caller's fault).
        """
        _check(request)
        templates.check(request.task.template)
        task = _with_agent_defaults(request.task, agent)
        request = replace(request, task=task, messages=_with_context(request.messages, task))
        selection = self._select(request, agent, wait_s, resident)
        spec = selection.spec
        _check_supported(request, selection)
        parameters = generation.parameters(task.task_type, spec, self.thresholds, request.options, UNLIMITED)
        mode, cache_reason = self._cache_mode(request, agent)
        keys = {
            "model": f"{self.realm}/{spec.name}",
            "messages": request.messages,
            "options": parameters.options,
            "tools": request.tools,
            "format": request.format,
            "think": request.think,
            "kind": request.kind,
            "group": agent.group,
            "template": task.template,
            "language": task.language,
            "inputs": request.inputs,
            "suffix": request.suffix,
            "raw": request.raw,
        }
        key = caching.exact_key(**keys)
        return Routed(
            request=request,
            agent=agent,
            selection=selection,
            parameters=parameters,
            key=key,
            partition=caching.partition_key(**keys, embedder=self.embed.name if self.embed else ""),
            question=_last_user_text(request.messages),
            cache=mode,
            decisions=(
                selection.decision,
                parameters.decision,
                Decision("cache", mode.value, cache_reason, {"key": key}),
            ),
        )

    def _select(
        self, request: Request, agent: AgentProfile, wait_s: Callable[[str], float], resident: Collection[str]
    ) -> Selection:
        wanted = request.wanted
        if request.kind is Kind.EMBED and wanted == AUTO:
            wanted = DEFAULT  # the small model is nearly always resident
        if wanted != AUTO:
            if wanted not in self.catalogue.tiers and wanted not in self.catalogue.models:
                raise ModelNotFound(wanted)
            return self._named(wanted, f"{wanted} was asked for")
        conversation = _conversation(request)
        selection = self.selector.select(
            request,
            agent,
            self.catalogue,
            self.thresholds,
            wait_s=wait_s,
            floor=self._conversations.get(conversation, ""),
            resident=resident,
        )
        self._remember(conversation, selection.tier)
        return selection

    def _named(self, wanted: str, reason: str) -> Selection:
        spec = self.catalogue.model_of(wanted) if wanted in self.catalogue.tiers else self.catalogue.models[wanted]
        return Selection(spec, spec.tier, None, Decision("selection", spec.name, reason))

    def _remember(self, conversation: str, tier: str) -> None:
        before = self._conversations.pop(conversation, tier)
        self._conversations[conversation] = max(before, tier, key=rank)
        if len(self._conversations) > CONVERSATIONS:
            self._conversations.popitem(last=False)

    def _cache_mode(self, request: Request, agent: AgentProfile) -> tuple[CacheMode, str]:
        if not self.thresholds.cache_enabled:
            return CacheMode.OFF, "the cache is switched off"
        if request.kind is Kind.EMBED:
            return CacheMode.OFF, "embeddings are not cached"
        if agent.cache is CacheMode.OFF:
            return CacheMode.OFF, f"{agent.slug} opted out of the cache"
        if agent.cache is CacheMode.EXACT:
            return CacheMode.EXACT, f"{agent.slug} takes exact repeats only"
        obstacle = caching.semantic_obstacle(request, self.embed, self.count)
        if obstacle:
            return CacheMode.EXACT, f"exact repeats only: {obstacle}"
        return agent.cache, f"exact, then semantic under the {agent.cache.value} guard, in group {agent.group}"

    # 6: the cache ------------------------------------------------------------------------------

    def look_up(self, routed: Routed, now: float) -> Hit | None:
        """An answer that may be served instead of a generation. `now` is wall-clock seconds. May raise NotPrepared."""
        if routed.cache is CacheMode.OFF or not routed.request.cache_read:
            return None
        hit = self.cache.get_exact(routed.key, now)
        if hit is not None or routed.cache is CacheMode.EXACT or self.embed is None:
            return hit
        return self.cache.get_semantic(
            routed.partition,
            routed.question,
            self.embed([caching.comparable(routed.question)])[0],
            routed.cache,
            now,
            floor_light=self.thresholds.cache_similarity,
            floor_strict=max(self.thresholds.cache_similarity_strict, self.embed.strict_floor),
        )

    def exact_only(self, routed: Routed, why: str) -> Routed:
        """The same request without semantic look-up: the embedder failed, and the request goes on."""
        decision = Decision("cache", CacheMode.EXACT.value, f"exact repeats only: {why}", {"key": routed.key})
        decisions = tuple(decision if d.stage == "cache" else d for d in routed.decisions)
        return replace(routed, cache=CacheMode.EXACT, decisions=decisions)

    def remember(self, routed: Routed, completed: Completed, now: float) -> tuple[CacheEntry, list[str]] | None:
        """Keep a whole answer for later; the new entry and the keys it pushed out, or None if it may not be kept."""
        if routed.cache is CacheMode.OFF or not routed.request.cache_write or completed.tool_calls:
            return None
        entry = CacheEntry(
            key=routed.key,
            partition=routed.partition,
            agent=routed.agent.slug,
            group=routed.agent.group,
            model=routed.model,
            question=routed.question,
            text=completed.text,
            thinking=completed.thinking,
            done_reason=completed.done_reason,
            prompt_tokens=completed.prompt_tokens,
            output_tokens=completed.output_tokens,
            embedding=self._question_vector(routed),
            stored_at=now,
        )
        if not caching.storable(entry):
            return None
        return entry, self.cache.put(entry, now)

    def _question_vector(self, routed: Routed) -> Any:
        """What the answer is found by later; None where only exact repeats may find it, or the vector is gone."""
        if self.embed is None or routed.cache not in (CacheMode.LIGHT, CacheMode.STRICT):
            return None
        try:
            return self.embed([caching.comparable(routed.question)])[0]
        except NotPrepared:
            return None

    # 2, 5, 7: what the model needs --------------------------------------------------------------

    def summary_prompt(self, routed: Routed) -> str | None:
        """What to ask for a summary of the conversation's older half; None when it fits its window without one."""
        request, spec = routed.request, routed.selection.spec
        if request.kind is Kind.EMBED or request.raw:
            return None
        most = spec.context_window * self.thresholds.context_fill
        if self._tokens(request.messages) <= most or self._tokens(self._compress(routed)[0]) <= most:
            return None
        return context.summary_request(request.messages, self.thresholds)

    def shape(self, routed: Routed, summary: str | None = None, *, at_once: bool = False) -> Shaped:
        """Compress, fit the window, size the job. `summary` of the older half, if one was written.

        Raises ContextOverflow (the caller's fault), or NotPrepared unless it is to be done `at_once`.
        """
        request, spec = routed.request, routed.selection.spec
        if request.kind is Kind.EMBED:
            tokens = sum(map(self.count, request.inputs))
            return self._shaped(routed, request.messages, tokens, tokens, ())
        original = self._tokens(request.messages)
        messages, compressed = self._compress(routed)
        explicit = routed.parameters.options["num_predict"]
        reserve = max(1, min(int(explicit), int(spec.context_window * ANSWER_SHARE)))
        if request.raw:
            if original + reserve > spec.context_window:
                raise ContextOverflow(
                    f"the prompt has about {original} tokens; {spec.name} has a window of {spec.context_window}"
                )
            fitted_decision = Decision("context", "as sent", "a raw prompt is never changed")
        else:
            fitted = context.fit(
                messages,
                window_tokens=spec.context_window,
                reserve_tokens=reserve,
                thresholds=self.thresholds,
                count=self.count,
                embed=self._embed_at_once if at_once else self.embed,
                summarise=lambda older: summary,
            )
            messages = fitted.messages
            fitted_decision = Decision(
                "context",
                f"{len(messages)} of {len(request.messages)} messages",
                fitted.note or f"fits the window of {spec.context_window} tokens",
                {"dropped": fitted.dropped, "summarised": fitted.summarised, "window": spec.context_window},
            )
        sent = self._tokens(messages)
        return self._shaped(routed, messages, original, sent, (*compressed, fitted_decision))

    def _compress(self, routed: Routed) -> tuple[tuple[Message, ...], tuple[Decision, ...]]:
        request, tier = routed.request, self.catalogue.tiers[routed.selection.tier]
        if request.raw or not (self.thresholds.compression and routed.agent.compress):
            why = "a raw prompt is never changed" if request.raw else "compression is switched off"
            return request.messages, (Decision("compression", "none", why),)
        budget = self.thresholds.budget_tokens(tier.slug)
        rewrites: dict[str, int] = {}
        before = after = 0
        dropped: list[str] = []
        messages: list[Message] = []
        for message in request.messages:
            if message.role == "assistant" or not message.content:
                messages.append(message)  # a model's own words stay byte-stable for the KV prefix
                continue
            result = compression.compress(message.content, tier.compression, self.count)
            before, after = before + result.tokens_before, after + result.tokens_after
            for rewrite in result.rewrites:
                rewrites[rewrite] = rewrites.get(rewrite, 0) + 1
            text = result.text
            if message.role == "user" and result.tokens_after > budget:
                cut = truncation.truncate(text, budget, self.count, embed=self._embed_at_once)
                text, after = cut.text, after - result.tokens_after + cut.tokens_after
                dropped.append(cut.dropped)
            messages.append(replace(message, content=text))
        values = {"tokens_before": before, "tokens_after": after, "rewrites": rewrites, "truncated": dropped}
        decision = Decision(
            "compression",
            f"saved {before - after} of {before} tokens",
            f"{tier.compression.value} for tier {tier.slug}"
            + (f"; {', '.join(rewrites)}" if rewrites else "; nothing saved tokens safely")
            + (f"; cut to the budget of {budget} tokens: {'; '.join(dropped)}" if dropped else ""),
            values,
        )
        return tuple(messages), (decision,)

    def _shaped(
        self,
        routed: Routed,
        messages: tuple[Message, ...],
        original: int,
        sent: int,
        decisions: tuple[Decision, ...],
    ) -> Shaped:
        request, spec, agent = routed.request, routed.selection.spec, routed.agent
        room = max(1, spec.context_window - sent)
        options = dict(routed.parameters.options)
        options["num_predict"] = min(options["num_predict"], room)
        embeds = request.kind is Kind.EMBED
        job = Job(
            id=request.id,
            agent=agent.slug,
            model=spec.name,
            prompt_tokens=sent,
            expected_tokens=0
            if embeds
            else self.lengths.expected(agent.slug, spec.name, spec.tier, options["num_predict"]),
            target_s=self.catalogue.tiers[routed.selection.tier].target_s,
            priority=agent.priority if request.priority is None else request.priority,
            weight=agent.weight,
            max_waiting=agent.max_waiting,
            deadline=request.deadline_s,  # made absolute by the runner, which has the clock
            prefix=_prefix(messages),
        )
        call = Call(
            model=spec.name,
            messages=messages,
            options=options,
            tools=request.tools,
            format=request.format,
            think=request.think,
            suffix=request.suffix,
            raw=request.raw,
        )
        return Shaped(routed, call, job, original, sent, (*routed.decisions, *decisions))

    def _tokens(self, messages: tuple[Message, ...]) -> int:
        return context.tokens(messages, self.count) + IMAGE_TOKENS * sum(len(m.images) for m in messages)


def transcript(messages: tuple[Message, ...], inputs: tuple[str, ...] = ()) -> str:
    """Messages as a person reads them, for the record and its diff."""
    return "\n\n".join([f"[{m.role}]\n{m.content}" for m in messages] + list(inputs))


def _check(request: Request) -> None:
    if request.kind is Kind.EMBED:
        if not request.inputs:
            raise InvalidRequest("input must not be empty", param="input")
    elif not request.messages:
        raise InvalidRequest("messages must not be empty", param="messages")


def _check_supported(request: Request, selection: Selection) -> None:
    spec = selection.spec
    if request.tools and not spec.supports_tools:
        raise UnsupportedFeature(f"{spec.name} does not support tools", param="tools")
    if any(m.images for m in request.messages) and not spec.supports_images:
        raise UnsupportedFeature(f"{spec.name} does not support images", param="messages")
    if request.kind is Kind.EMBED and not spec.embeds:
        raise UnsupportedFeature(f"{spec.name} does not support embeddings", param="model")


def _with_agent_defaults(task: Task, agent: AgentProfile) -> Task:
    expertise = agent.expertise_level if task.expertise_level is None else task.expertise_level
    return replace(task, task_type=task.task_type or agent.task_type, expertise_level=expertise)


def _with_context(messages: tuple[Message, ...], task: Task) -> tuple[Message, ...]:
    """The strategy's task context stands before the question it belongs to."""
    if not task.context or not messages:
        return messages
    last = messages[-1]
    return (*messages[:-1], replace(last, content=f"Context:\n{task.context}\n\n{last.content}"))


def _last_user_text(messages: tuple[Message, ...]) -> str:
    return next((m.content for m in reversed(messages) if m.role == "user"), "")


def _conversation(request: Request) -> str:
    """The caller's id, or the start of the conversation: agent, system prompt and first question."""
    if request.conversation:
        return f"{request.agent}:{request.conversation}"
    first = next((m.content for m in request.messages if m.role == "user"), "")
    return f"{request.agent}:{_digest(_system(request.messages), first)}"


def _prefix(messages: tuple[Message, ...]) -> str:
    first = next((m.content for m in messages if m.role == "user"), "")
    return _digest(_system(messages), first) if len(messages) > 1 else ""


def _system(messages: tuple[Message, ...]) -> str:
    return "\n".join(m.content for m in messages if m.role == "system")


def _digest(*parts: str) -> str:
    joined = "\x00".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(joined, digest_size=8).hexdigest()
