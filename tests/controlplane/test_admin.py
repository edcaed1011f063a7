"""The admin: every page opens, actions do what they say, history cannot be changed, guidelines warn."""

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.urls import path, reverse
from django.utils import timezone

from controlplane import durable_tasks, keys, queries, thresholds, webhooks
from controlplane.durable_tasks import Line, Once
from controlplane.models import (
    Agent,
    AgentKey,
    AuditEntry,
    Batch,
    CachedAnswer,
    Chore,
    DurableTask,
    LanguageModel,
    Metric,
    Node,
    RequestRecord,
    Suggestion,
    ThresholdRevision,
    Tier,
    WebhookDelivery,
)
from controlplane.stores import durable
from optimizer.core.request import Priority

# The admin alone, whatever else the project routes.
urlpatterns = [path("admin/", admin.site.urls)]
pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

MODELS = (
    Agent,
    AgentKey,
    AuditEntry,
    Batch,
    CachedAnswer,
    Chore,
    DurableTask,
    LanguageModel,
    Metric,
    Node,
    RequestRecord,
    Suggestion,
    ThresholdRevision,
    Tier,
    WebhookDelivery,
)
HISTORY = (
    AuditEntry,
    Batch,
    CachedAnswer,
    Chore,
    DurableTask,
    Metric,
    RequestRecord,
    Suggestion,
    ThresholdRevision,
    WebhookDelivery,
)


def url(model, page: str, *args) -> str:
    return reverse(f"admin:controlplane_{model._meta.model_name}_{page}", args=args)


def act(client, model, action: str, rows):
    return client.post(
        url(model, "changelist"), {"action": action, "_selected_action": [row.pk for row in rows]}, follow=True
    )


def said(response) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def stored(prefix: str) -> dict:
    """What the edit page would send back unchanged."""
    return {f"{prefix}-TOTAL_FORMS": "0", f"{prefix}-INITIAL_FORMS": "0"}


@pytest.fixture
def client_of(client):
    def sign_in(role: str):
        user = User.objects.create_user(role, is_staff=True)
        user.groups.add(Group.objects.get(name=role))
        client.force_login(user)
        return client

    return sign_in


@pytest.fixture
def rows(seeded):
    """At least one row of everything."""
    keys.issue(Agent.objects.get(slug="debugger"), "laptop")
    thresholds.change({"slots": 1}, "ann", "one is enough")
    now = timezone.now()
    Node.objects.create(name="ollama", kind="ollama", started_at=now)
    Suggestion.objects.create(rule="slow", severity="high", title="Slow answers", change={"max_tokens_scale": 0.8})
    CachedAnswer.objects.create(
        key="k", partition="p", agent="debugger", group="g", model="m", question="why?", text="so", stored_at=now
    )
    webhooks.set_address(Agent.objects.get(slug="debugger"), "https://receiver.example/", "ann")
    task, _ = durable_tasks.accept("debugger", {"prompt": "SECRET"}, Priority.AGENT, Once(), now.timestamp(), 9)
    durable_tasks.cancel(task, now.timestamp())
    durable_tasks.accept_batch("debugger", [Line(1, "", {"prompt": "SECRET"})], Once(), now.timestamp(), 9)
    Metric.objects.create(name="queue", resolution="minute", start=now, count=1, sum=1, min=1, max=1)
    Chore.objects.create(name="watch", said="0 fired, 0 hold, 0 cleared")
    RequestRecord.objects.create(
        id="r1", agent="debugger", protocol="openai", kind="chat", wanted="auto", model="tinyllama", tier="default",
        status="replied", arrived_at=now, queue_s=0, load_s=0, prefill_s=0, decode_s=0, ttft_s=0, total_s=0,
        prompt_tokens_original=9, prompt_tokens=5, output_tokens=1, cache="miss", simulated=False,
        decisions=[{"stage": "selection", "choice": "<b>opus</b>", "reason": "complex"}],
    )  # fmt: skip


def test_every_list_search_and_detail_page_opens(admin_client, rows):
    for model in MODELS:
        row = model.objects.first()
        for page in (url(model, "changelist"), url(model, "changelist") + "?q=debugger", url(model, "change", row.pk)):
            assert admin_client.get(page, follow=True).status_code == 200, page


def test_every_stored_model_has_an_admin_page():
    registered = {model for model in admin.site._registry if model._meta.app_label == "controlplane"}
    assert registered == set(MODELS)


def test_history_cannot_be_changed_or_deleted(admin_client, rows):
    for model in HISTORY:
        row = model.objects.first()
        assert admin_client.post(url(model, "change", row.pk), {}).status_code == 403, model
        assert admin_client.post(url(model, "delete", row.pk), {"post": "yes"}).status_code == 403, model


def test_a_decision_is_escaped(admin_client, rows):
    page = admin_client.get(url(RequestRecord, "change", "r1")).content.decode()
    assert "&lt;b&gt;opus&lt;/b&gt;" in page


def test_moving_agents_warns_of_those_whose_bounds_exclude_the_tier(admin_client, seeded):
    Agent.objects.filter(slug="go-developer").update(max_tier="sonnet")
    version = queries.state_version()
    chosen = Agent.objects.filter(slug__in=("go-developer", "rust-developer"))
    messages = said(act(admin_client, Agent, "move_to_opus", chosen))
    assert messages[0] == "1 agents moved to the opus tier."
    assert "go-developer" in messages[1]
    assert "The strategy has 'Code generation' in the Sonnet tier." in messages[2]
    assert Agent.objects.get(slug="rust-developer").tier_id == "opus"
    assert Agent.objects.get(slug="go-developer").tier_id == "sonnet"
    assert queries.state_version() > version
    assert AuditEntry.objects.get(action="move").detail["agents"] == ["rust-developer"]


def test_pausing_and_resuming(admin_client, agent):
    act(admin_client, Agent, "pause", [agent])
    assert Agent.objects.get(pk=agent.pk).paused
    act(admin_client, Agent, "resume", [agent])
    assert not Agent.objects.get(pk=agent.pk).paused
    assert list(AuditEntry.objects.order_by("pk").values_list("action", flat=True)) == ["pause", "resume"]


def test_an_issued_key_is_shown_once_and_not_kept(admin_client, agent):
    response = act(admin_client, Agent, "issue_key", [agent])
    token = next(token for _, token in response.context["issued"])
    assert token in response.content.decode()
    assert "no-store" in response["Cache-Control"]
    key = AgentKey.objects.get()
    assert key.digest == keys.digest(token.split("_")[2])
    assert token not in admin_client.get(url(AgentKey, "change", key.pk)).content.decode()
    act(admin_client, AgentKey, "revoke", [key])
    assert AgentKey.objects.get().revoked_at is not None


def test_an_agent_edited_off_its_guidelines_is_saved_with_a_warning(admin_client, agent):
    form = admin_client.get(url(Agent, "change", agent.pk)).context["adminform"].form
    data = {name: value for name, value in form.initial.items() if value is not None and value is not False}
    data |= {"tier": "default", "expertise_level": "0.9"} | stored("keys")
    response = admin_client.post(url(Agent, "change", agent.pk), data, follow=True)
    assert any("Expertise 0.9" in message for message in said(response))
    assert AuditEntry.objects.get(action="change").detail["changes"]["tier"] == ["sonnet", "default"]


def test_a_temperature_outside_the_models_range_warns(admin_client, seeded):
    model = LanguageModel.objects.get(name="qwen2.5-coder:7b")
    form = admin_client.get(url(LanguageModel, "change", model.pk)).context["adminform"].form
    data = {name: value for name, value in form.initial.items() if value is not None and value is not False}
    response = admin_client.post(
        url(LanguageModel, "change", model.pk), data | {"temperature_factor": "1.5"}, follow=True
    )
    assert any("temperature 1.05 is outside the guideline 0.5 to 0.7" in message for message in said(response))
    assert LanguageModel.objects.get(pk=model.pk).temperature_factor == 1.5


def test_agents_are_added_and_deleted_in_the_admin(admin_client, seeded):
    form = admin_client.get(url(Agent, "add")).context["adminform"].form
    data = {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}
    data = {name: value for name, value in data.items() if value is not None and value is not False} | stored("keys")
    bad = admin_client.post(url(Agent, "add"), data | {"name": "Scout", "slug": "debugger", "tier": "opus"})
    assert "slug" in bad.context["adminform"].form.errors
    admin_client.post(url(Agent, "add"), data | {"name": "Scout", "slug": "scout", "tier": "opus"})
    keys.issue(Agent.objects.get(slug="scout"))
    version = queries.state_version()
    chosen = Agent.objects.filter(slug__in=("scout", "debugger"))
    admin_client.post(
        url(Agent, "changelist"),
        {"action": "delete_selected", "_selected_action": [row.pk for row in chosen], "post": "yes"},
    )
    assert Agent.objects.count() == 130
    assert not AgentKey.objects.exists()
    assert queries.state_version() > version
    actions = AuditEntry.objects.order_by("pk").values_list("action", "target")
    assert list(actions) == [
        ("add", "agent scout"),
        ("issue_key", "agent scout"),
        ("delete", "agent debugger"),
        ("delete", "agent scout"),
    ]


def test_two_models_cannot_serve_one_tier_on_one_backend(admin_client, seeded):
    row = LanguageModel.from_spec("ollama", LanguageModel.objects.get(name="tinyllama").spec(), is_tier_default=True)
    row.name = "other"
    with pytest.raises(ValidationError, match="Another model serves this tier there"):
        row.full_clean()


def test_a_tier_is_given_another_model_and_never_left_without(admin_client, seeded):
    serving = LanguageModel.objects.get(name="tinyllama")
    assert admin_client.post(url(LanguageModel, "delete", serving.pk), {"post": "yes"}).status_code == 403
    other = LanguageModel.from_spec("ollama", serving.spec())
    other.name = "smollm2:360m"
    other.save()
    act(admin_client, LanguageModel, "serve_tier", [other])
    assert queries.catalogue("ollama", thresholds.current()).tiers["default"].model == "smollm2:360m"


def test_the_thresholds_page_shows_every_threshold_with_its_limits(admin_client):
    page = admin_client.get(url(ThresholdRevision, "add")).content.decode()
    for name in thresholds.as_dict(thresholds.current()):
        assert f'name="{name}"' in page
    assert "GPU memory (MB):" in page
    assert "(16 to 1,048,576 MB, default 4,096; strategy.md)" in page
    assert "(default on; strategy.md)" in page


def post_thresholds(client, **changes):
    form = client.get(url(ThresholdRevision, "add")).context["form"]
    data = {name: value for name, value in form.initial.items() if value is not False}
    return client.post(url(ThresholdRevision, "add"), data | changes, follow=True)


def test_changing_thresholds_makes_a_revision_and_warns(admin_client, seeded):
    response = post_thresholds(admin_client, temperature="1.2", reason="more colour")
    messages = said(response)
    assert messages[0] == "Changed: temperature."
    assert any("outside the guideline" in message for message in messages[1:])
    revision = ThresholdRevision.objects.get()
    assert (revision.author, revision.reason, revision.changes) == ("admin", "more colour", {"temperature": [0.7, 1.2]})


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"gpu_headroom": "1.5", "reason": "x"}, "gpu_headroom"),
        ({"slots": "", "reason": "x"}, "slots"),
        ({"slots": "two", "reason": "x"}, "slots"),
        ({"cut_sonnet": "0.9", "reason": "x"}, "cut_sonnet"),
        ({"slots": "1"}, "reason"),
        ({"slots": "1", "reason": "x", "revision": "77"}, "revision"),
        ({"reason": "x"}, "__all__"),
    ],
)
def test_a_bad_change_is_refused_at_its_field_and_stores_nothing(admin_client, changes, field):
    response = post_thresholds(admin_client, **changes)
    assert field in response.context["form"].errors
    assert not ThresholdRevision.objects.exists()


def test_undoing_a_revision_takes_one_click(admin_client):
    thresholds.change({"slots": 1}, "ann", "one is enough")
    revision = ThresholdRevision.objects.get()
    undo = reverse("admin:controlplane_thresholdrevision_undo", args=[revision.pk])
    assert undo in admin_client.get(url(ThresholdRevision, "changelist")).content.decode()
    assert admin_client.get(undo).status_code == 405
    assert said(admin_client.post(undo, follow=True)) == [f"revision {revision.pk} undone."]
    assert thresholds.current().slots == 2


def test_suggestions_are_applied_dismissed_and_rolled_back(admin_client, rows):
    suggestion = Suggestion.objects.get()
    act(admin_client, Suggestion, "apply", [suggestion])
    assert thresholds.current().max_tokens_scale == 0.8
    assert said(act(admin_client, Suggestion, "dismiss", [suggestion])) == ["Slow answers: cannot be dismissed now."]
    act(admin_client, Suggestion, "roll_back", [suggestion])
    assert thresholds.current().max_tokens_scale == 1.0
    assert Suggestion.objects.get().state == "rolled_back"


def test_invalidating_cached_answers(admin_client, rows):
    act(admin_client, CachedAnswer, "invalidate", CachedAnswer.objects.all())
    assert queries.invalidated_answers() == {"k"}


def test_durable_tasks_are_cancelled_and_queued_again_by_operators(client_of, rows):
    client = client_of("operator")
    waiting, cancelled = DurableTask.objects.get(status="queued"), DurableTask.objects.get(status="cancelled")
    assert said(act(client, DurableTask, "cancel", [waiting, cancelled])) == ["1 tasks cancelled."]
    assert said(act(client, DurableTask, "requeue", [waiting, cancelled])) == ["2 tasks queued again."]
    assert DurableTask.objects.filter(status="queued", finished_at=None).count() == 2
    assert said(act(client, Batch, "cancel", [Batch.objects.get()])) == ["1 tasks cancelled."]
    assert AuditEntry.objects.filter(action__in=("cancel", "requeue")).count() == 3
    assert len(durable.claim("r1", {Priority.AGENT: 9}, {}, timezone.now().timestamp(), 8.0)) == 1


def test_a_viewer_cancels_no_task_and_reads_no_prompt(client_of, rows):
    client, task = client_of("viewer"), DurableTask.objects.get(status="queued")
    act(client, DurableTask, "cancel", [task])
    assert DurableTask.objects.get(pk=task.pk).status == "queued"
    assert "SECRET" not in client.get(url(DurableTask, "change", task.pk)).content.decode()


def test_webhooks_and_their_secrets_are_for_administrators(client_of, rows):
    agent = Agent.objects.get(slug="debugger")
    address = url(Agent, "change", agent.pk)
    for role in ("viewer", "operator"):
        text = client_of(role).get(address).content.decode()
        assert agent.webhook_secret not in text and "receiver.example" not in text
    client = client_of("admin")
    assert agent.webhook_secret in client.get(address).content.decode()
    form = client.get(address).context["adminform"].form
    sent = (
        {name: form[name].value() for name in form.fields} | stored("keys") | {"webhook_url": "https://other.example/"}
    )
    sent = {name: "" if value is None else value for name, value in sent.items() if value is not False}
    assert client.post(address, sent).status_code == 302
    agent.refresh_from_db()
    assert agent.webhook_url == "https://other.example/" and agent.webhook_secret
    assert "ftp" in str(client.post(address, {**sent, "webhook_url": "ftp://x"}).content)
    assert Agent.objects.get(pk=agent.pk).webhook_url == "https://other.example/"


def test_a_viewer_sees_everything_and_changes_nothing(client_of, rows):
    client = client_of("viewer")
    agent = Agent.objects.get(slug="debugger")
    for model in MODELS:
        assert client.get(url(model, "changelist")).status_code == 200
    act(client, Agent, "pause", [agent])
    act(client, Agent, "issue_key", [agent])
    assert not Agent.objects.get(pk=agent.pk).paused
    assert AgentKey.objects.count() == 1  # the one of the fixture
    assert client.get(url(ThresholdRevision, "add")).status_code == 403
    assert client.post(url(Agent, "change", agent.pk), {"paused": "on"}).status_code == 403


def test_an_operator_steers_but_does_not_delete_agents(client_of, rows):
    client = client_of("operator")
    agent = Agent.objects.get(slug="debugger")
    act(client, Agent, "pause", [agent])
    assert Agent.objects.get(pk=agent.pk).paused
    assert client.get(url(ThresholdRevision, "add")).status_code == 403
    assert client.post(url(Agent, "delete", agent.pk), {"post": "yes"}).status_code == 403
    assert client.get(reverse("admin:auth_user_changelist")).status_code == 403


def test_the_admin_asks_to_sign_in(client):
    response = client.get(url(Agent, "changelist"))
    assert response.status_code == 302
    assert "/login/" in response.url
