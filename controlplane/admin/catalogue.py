"""Tiers, models and nodes."""

from django.contrib import admin, messages
from django.db import transaction
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join

from controlplane import audit, guidelines, thresholds
from controlplane.admin.base import AuditedAdmin, actor
from controlplane.models import LanguageModel, Node, Tier


@admin.register(Tier)
class TierAdmin(AuditedAdmin):
    list_display = ("name", "purpose", "serving", "budget", "compression", "target_s", "agent_count")
    fields = ("name", "slug", "purpose", "serving", "budget", "compression", "target_s", "use_cases", "guidelines")
    readonly_fields = ("slug", "serving", "budget")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # the three tiers are the strategy's; everything is built on them

    def has_delete_permission(self, request: HttpRequest, obj: Tier | None = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tier]:
        rows = super().get_queryset(request).annotate(agents_here=Count("agents"))
        return rows.prefetch_related("models")

    @admin.display(description="agents", ordering="agents_here")
    def agent_count(self, tier: Tier) -> int:
        return tier.agents_here

    @admin.display(description="served by")
    def serving(self, tier: Tier) -> str:
        serving = [model for model in tier.models.all() if model.is_tier_default]
        return ", ".join(f"{model.name} ({model.backend})" for model in serving) or "nothing"

    @admin.display(description="prompt budget")
    def budget(self, tier: Tier) -> str:
        return f"{thresholds.current().budget_tokens(tier.slug)} tokens (a threshold)"


@admin.register(LanguageModel)
class LanguageModelAdmin(AuditedAdmin):
    list_display = (
        "name",
        "backend",
        "tier",
        "is_tier_default",
        "enabled",
        "residency",
        "footprint",
        "speed",
        "context_window",
        "temperature_range",
    )
    list_filter = ("backend", "tier", "is_tier_default", "enabled", "residency")
    search_fields = ("name", "use_cases", "guidelines")
    list_select_related = ("tier",)
    readonly_fields = (
        "measured_footprint_mb",
        "measured_vram_mb",
        "measured_load_s",
        "measured_prefill_tps",
        "measured_decode_tps",
        "measured_at",
        "temperatures",
    )
    fieldsets = (
        (None, {"fields": ("name", "backend", "tier", "is_tier_default", "enabled", "use_cases", "guidelines")}),
        ("Memory", {"fields": ("residency", "footprint_mb", "context_window")}),
        ("Speed (declared)", {"fields": ("load_s", "prefill_tps", "decode_tps")}),
        (
            "Generation",
            {
                "fields": (
                    "max_tokens",
                    "temperature_factor",
                    ("temperature_low", "temperature_high"),
                    "temperatures",
                )
            },
        ),
        ("Abilities", {"fields": ("supports_tools", "supports_thinking", "supports_images", "embeds")}),
        ("Measured (counts before what is declared)", {"fields": readonly_fields[:-1]}),
    )
    actions = ("serve_tier", "forget_measurements")

    def has_delete_permission(self, request: HttpRequest, obj: LanguageModel | None = None) -> bool:
        return super().has_delete_permission(request, obj) and not (obj is not None and obj.is_tier_default)

    def get_readonly_fields(self, request: HttpRequest, obj: LanguageModel | None = None) -> tuple[str, ...]:
        if obj is None:
            return self.readonly_fields
        # A tier is given another model by the action, never left without one.
        fixed = ("name", "backend", "is_tier_default") + (("tier",) if obj.is_tier_default else ())
        return (*self.readonly_fields, *fixed)

    @admin.display(description="footprint (MB)", ordering="footprint_mb")
    def footprint(self, model: LanguageModel) -> str:
        return _with_measured(model.footprint_mb, model.measured_footprint_mb)

    @admin.display(description="decode (tokens/s)", ordering="decode_tps")
    def speed(self, model: LanguageModel) -> str:
        return _with_measured(model.decode_tps, model.measured_decode_tps)

    @admin.display(description="temperature")
    def temperature_range(self, model: LanguageModel) -> str:
        return f"{model.temperature_low:g} to {model.temperature_high:g}"

    @admin.display(description="temperature by task")
    def temperatures(self, model: LanguageModel) -> str:
        if model.pk is None:
            return ""
        return format_html_join("\n", "{}: {}<br>", guidelines.temperatures(model, thresholds.current()).items())

    def guideline_warnings(self, row: LanguageModel) -> list[str]:
        in_force = thresholds.current()
        others = LanguageModel.objects.filter(backend=row.backend)
        return guidelines.of_model(row, in_force) + guidelines.of_residents(others, in_force)

    @admin.action(description="Let it serve its tier", permissions=["change"])
    def serve_tier(self, request: HttpRequest, chosen: QuerySet[LanguageModel]) -> None:
        for model in chosen:
            if not model.enabled:
                self.message_user(request, f"{model} is not enabled.", messages.ERROR)
                continue
            with transaction.atomic():
                peers = LanguageModel.objects.filter(backend=model.backend, tier=model.tier)
                peers.filter(is_tier_default=True).update(is_tier_default=False)
                peers.filter(pk=model.pk).update(is_tier_default=True)
                audit.record(actor(request), "serve_tier", f"tier {model.tier_id}", model=str(model), on=model.backend)
            self.message_user(request, f"{model} serves the {model.tier} tier on {model.backend}.", messages.SUCCESS)

    @admin.action(description="Forget what was measured", permissions=["change"])
    def forget_measurements(self, request: HttpRequest, chosen: QuerySet[LanguageModel]) -> None:
        names = [name for name in self.readonly_fields if name.startswith("measured_")]
        count = chosen.update(**dict.fromkeys(names))
        audit.record(actor(request), "forget_measurements", f"{count} models", models=[str(model) for model in chosen])
        self.message_user(request, f"{count} models count as declared again.", messages.SUCCESS)


@admin.register(Node)
class NodeAdmin(AuditedAdmin):
    list_display = ("name", "kind", "url", "enabled", "gpu_memory_mb", "slots", "state", "state_reason", "seen_at")
    list_filter = ("kind", "enabled", "state")
    search_fields = ("name", "url")
    # The thresholds a node brings are the engine's word; an admin sets thresholds, which win over them.
    readonly_fields = ("name", "kind", "url", "threshold_defaults", "state", "state_reason", "started_at", "seen_at")
    fields = ("name", "kind", "url", "enabled", "gpu_memory_mb", "slots", *readonly_fields[3:])

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # an engine that starts adds its own


def _with_measured(declared: float, measured: float | None) -> str:
    return f"{declared:g}" if measured is None else f"{measured:.0f} (declared {declared:g})"
