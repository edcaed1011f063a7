"""Agents and their keys."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from controlplane import agent_files, audit, guidelines, keys, webhooks
from controlplane.admin.base import AuditedAdmin, actor
from controlplane.models import Agent, AgentKey, Tier
from optimizer.core.tiers import TIER_SLUGS, rank

MOST_KEYS_AT_ONCE = 131


def _sets_webhooks(request: HttpRequest) -> bool:
    """Where an agent's answers are announced, and with which secret, is for administrators."""
    return request.user.has_perm("controlplane.set_webhook")


class KeyInline(admin.TabularInline):
    """An agent's keys, to look at; they are made by the action and ended on their own page."""

    model = AgentKey
    extra = 0
    can_delete = False
    show_change_link = True
    fields = readonly_fields = ("prefix", "name", "scopes", "state", "created_at", "last_used_at", "expires_at")

    def has_add_permission(self, request: HttpRequest, obj: Agent | None = None) -> bool:
        return False

    @admin.display(description="state")
    def state(self, key: AgentKey) -> str:
        return key.state(timezone.now())


@admin.register(Agent)
class AgentAdmin(AuditedAdmin):
    list_display = ("name", "slug", "tier", "use_case", "task_type", "expertise_level", "live_keys", "paused")
    list_filter = ("tier", "paused", "use_case", "task_type", "priority", "cache", "compress", "combine")
    search_fields = ("slug", "name", "description", "use_case", "tags", "cache_group")
    list_select_related = ("tier",)
    list_per_page = 50
    readonly_fields = ("created_at", "updated_at", "secret")
    inlines = (KeyInline,)
    fieldsets = (
        (None, {"fields": ("name", "slug", "description", "tags", "paused")}),
        ("Work", {"fields": ("tier", "min_tier", "max_tier", "use_case", "task_type", "expertise_level")}),
        ("Queue", {"fields": ("priority", "weight", "max_waiting")}),
        ("Limits", {"fields": ("requests_per_minute", "tokens_per_minute", "max_concurrent")}),
        ("Prompts and answers", {"fields": ("compress", "combine", "cache", "cache_group", "store_prompts")}),
        ("Webhook", {"fields": ("webhook_url", "secret")}),
        ("Times", {"fields": ("created_at", "updated_at"), "classes": ("collapse",)}),
    )
    actions = ("move_to_default", "move_to_sonnet", "move_to_opus", "pause", "resume", "issue_key", "as_csv", "as_json")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Agent]:
        live = Q(keys__revoked_at__isnull=True) & (
            Q(keys__expires_at__isnull=True) | Q(keys__expires_at__gt=timezone.now())
        )
        return super().get_queryset(request).annotate(live_key_count=Count("keys", filter=live))

    def get_readonly_fields(self, request: HttpRequest, obj: Agent | None = None) -> tuple[str, ...]:
        # History and keys name the slug: it stays what it is.
        fixed = (*self.readonly_fields, "slug") if obj else self.readonly_fields
        return fixed if _sets_webhooks(request) else (*fixed, "webhook_url")

    def get_fieldsets(self, request: HttpRequest, obj: Agent | None = None) -> Any:
        shown = super().get_fieldsets(request, obj)
        return shown if _sets_webhooks(request) else [(name, about) for name, about in shown if name != "Webhook"]

    def save_model(self, request: HttpRequest, obj: Agent, form: Any, change: bool) -> None:
        if obj.webhook_url and not obj.webhook_secret:
            obj.webhook_secret = webhooks.new_secret()
        super().save_model(request, obj, form, change)

    @admin.display(description="signing secret")
    def secret(self, agent: Agent) -> str:
        return agent.webhook_secret or "made when an address is saved"

    def get_prepopulated_fields(self, request: HttpRequest, obj: Agent | None = None) -> dict[str, Any]:
        return {} if obj else {"slug": ("name",)}

    @admin.display(description="live keys", ordering="live_key_count")
    def live_keys(self, agent: Agent) -> int:
        return agent.live_key_count

    def guideline_warnings(self, row: Agent) -> list[str]:
        return guidelines.of_agent(row, Tier.objects.all())

    def has_issue_key_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("controlplane.add_agentkey")

    @admin.action(description="Move to the default tier", permissions=["change"])
    def move_to_default(self, request: HttpRequest, agents: QuerySet[Agent]) -> None:
        self._move(request, agents, "default")

    @admin.action(description="Move to the sonnet tier", permissions=["change"])
    def move_to_sonnet(self, request: HttpRequest, agents: QuerySet[Agent]) -> None:
        self._move(request, agents, "sonnet")

    @admin.action(description="Move to the opus tier", permissions=["change"])
    def move_to_opus(self, request: HttpRequest, agents: QuerySet[Agent]) -> None:
        self._move(request, agents, "opus")

    @admin.action(description="Pause: refuse new requests", permissions=["change"])
    def pause(self, request: HttpRequest, agents: QuerySet[Agent]) -> None:
        self._set_paused(request, agents, True)

    @admin.action(description="Resume", permissions=["change"])
    def resume(self, request: HttpRequest, agents: QuerySet[Agent]) -> None:
        self._set_paused(request, agents, False)

    @admin.action(description="Issue a key each (shown once)", permissions=["issue_key"])
    def issue_key(self, request: HttpRequest, agents: QuerySet[Agent]) -> HttpResponse | None:
        if agents.count() > MOST_KEYS_AT_ONCE:
            self.message_user(request, f"At most {MOST_KEYS_AT_ONCE} at once.", messages.ERROR)
            return None
        issued = [(agent, keys.issue(agent, "admin", actor=actor(request))) for agent in agents]
        context = {**self.admin_site.each_context(request), "title": "New keys", "issued": issued, "opts": self.opts}
        # A page of its own: a message would go through a cookie or the session store. (The admin sends no-store.)
        return TemplateResponse(request, "admin/controlplane/agentkey/issued.html", context)

    @admin.action(description="Export as CSV", permissions=["view"])
    def as_csv(self, request: HttpRequest, agents: QuerySet[Agent]) -> HttpResponse:
        return _download(agents, "csv")

    @admin.action(description="Export as JSON", permissions=["view"])
    def as_json(self, request: HttpRequest, agents: QuerySet[Agent]) -> HttpResponse:
        return _download(agents, "json")

    def _move(self, request: HttpRequest, agents: QuerySet[Agent], tier: str) -> None:
        above = [slug for slug in TIER_SLUGS if rank(slug) > rank(tier)]
        below = [slug for slug in TIER_SLUGS if rank(slug) < rank(tier)]
        outside = agents.filter(Q(min_tier__in=above) | Q(max_tier__in=below))
        left = list(outside.values_list("slug", flat=True))
        moving = Agent.objects.filter(pk__in=agents.exclude(slug__in=left).exclude(tier_id=tier).values("pk"))
        slugs = list(moving.values_list("slug", flat=True))
        moved = moving.update(tier_id=tier, updated_at=timezone.now())
        if moved:
            audit.record(actor(request), "move", f"{moved} agents", tier=tier, agents=slugs)
        self.message_user(request, f"{moved} agents moved to the {tier} tier.", messages.SUCCESS)
        if left:
            self.message_user(
                request, f"Left where they are, their bounds exclude {tier}: {', '.join(left)}.", messages.WARNING
            )
        for agent in Agent.objects.filter(slug__in=slugs)[:3]:
            for warning in self.guideline_warnings(agent):
                self.message_user(request, f"{agent}: {warning}", messages.WARNING)

    def _set_paused(self, request: HttpRequest, agents: QuerySet[Agent], paused: bool) -> None:
        changing = Agent.objects.filter(pk__in=agents.values("pk")).exclude(paused=paused)
        slugs = list(changing.values_list("slug", flat=True))
        changed = changing.update(paused=paused, updated_at=timezone.now())
        word = "paused" if paused else "resumed"
        if changed:
            audit.record(actor(request), "pause" if paused else "resume", f"{changed} agents", agents=slugs)
        self.message_user(request, f"{changed} agents {word}.", messages.SUCCESS)


def _download(agents: QuerySet[Agent], form: str) -> HttpResponse:
    answer = HttpResponse(agent_files.write(agents, form), content_type=f"text/{form}; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="agents.{form}"'
    return answer


@admin.register(AgentKey)
class AgentKeyAdmin(AuditedAdmin):
    list_display = ("__str__", "agent", "name", "scopes", "state", "created_at", "last_used_at", "expires_at")
    list_filter = (
        ("revoked_at", admin.EmptyFieldListFilter),
        ("last_used_at", admin.EmptyFieldListFilter),
        "agent__tier",
    )
    search_fields = ("prefix", "name", "agent__slug", "agent__name")
    list_select_related = ("agent",)
    date_hierarchy = "created_at"
    fields = ("agent", "prefix", "name", "scopes", "state", "expires_at", "created_at", "last_used_at", "revoked_at")
    readonly_fields = ("agent", "prefix", "scopes", "state", "created_at", "last_used_at", "revoked_at")
    actions = ("revoke",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # keys are issued from the list of agents, where the secret is shown

    @admin.display(description="state")
    def state(self, key: AgentKey) -> str:
        return key.state(timezone.now())

    def target(self, obj: AgentKey) -> str:
        return f"key {obj.prefix} of {obj.agent.slug}"

    @admin.action(description="Revoke: refused at once, for good", permissions=["change"])
    def revoke(self, request: HttpRequest, chosen: QuerySet[AgentKey]) -> None:
        count = sum(keys.revoke(key, actor=actor(request)) for key in chosen.select_related("agent"))
        self.message_user(request, f"{count} keys revoked.", messages.SUCCESS)
