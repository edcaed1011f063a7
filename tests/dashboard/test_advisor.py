"""The advisor's page: who may ask, what it shows while it is worked out, and after."""

import pytest

from controlplane import advice, chores
from controlplane.models import AuditEntry, Chore

FIGURES = {"mean_s": 9.0, "swaps": 12.0}


def answer(ratio: float, low: float, worth_it: bool) -> dict:
    effect = {"ratio": ratio, "low": low, "high": ratio + 0.1}
    return {
        "kind": "vram", "sentence": f"a card x{ratio}", "assumed": "as fast", "worth_it": worth_it, "effect": effect,
        "before": FIGURES, "after": {**FIGURES, "mean_s": 3.0},
    }  # fmt: skip


def found(*answers: dict, recorded: bool = True) -> dict:
    return {"recorded": recorded, "rests_on": "240 requests", "answers": list(answers)}


@pytest.fixture
def started(monkeypatch) -> list[bool]:
    calls: list[bool] = []
    monkeypatch.setattr(advice.subprocess, "Popen", lambda *a, **k: calls.append(True) or Process())
    return calls


class Process:
    def wait(self) -> None:
        pass


def test_the_last_answers_are_shown_with_a_verdict_each(sign_in):
    answers = found(answer(0.5, 0.4, True), answer(0.99, 0.9, False), answer(1.4, 1.2, False))
    client = sign_in("operator")
    chores.take(advice.CHORE).end("done", answers)
    text = client.get("/advisor").content.decode()
    assert text.index("worth it</td>") < text.index("no clear gain</td>") < text.index("worse</td>")
    assert "9.0 → 3.0 s" in text and "They rest on 240 requests." in text and "Work it out again" in text


def test_a_viewer_looks_and_an_operator_asks(sign_in, client, started):
    sign_in("viewer")
    assert "Work it out" not in client.get("/advisor").content.decode()
    assert client.post("/advisor").status_code == 403 and not started
    sign_in("operator")
    shown = client.post("/advisor", follow=True).content.decode()
    assert started and "It is being worked out" in shown
    assert AuditEntry.objects.get(action="advise").actor == "a-operator"


def test_while_it_is_worked_out_the_page_says_how_far_and_starts_no_second_one(sign_in, client, started, monkeypatch):
    monkeypatch.setattr(chores, "TOLD_EVERY_S", 0.0)
    sign_in("operator")
    claim = chores.take(advice.CHORE)
    claim.progress(3, 12)
    assert client.get("/advisor/state").json() == {"busy": True, "done": 0.25, "ended": ""}
    assert 'type="submit" class="primary">Work it out' not in client.get("/advisor").content.decode()
    assert "worked out already" in client.post("/advisor", follow=True).content.decode() and not started
    claim.end("failed: no model serves opus", failed=True)
    state = client.get("/advisor/state").json()
    assert not state["busy"] and state["ended"]
    assert "The last time it failed: no model serves opus." in client.get("/advisor").content.decode()
    assert Chore.objects.get(pk=advice.CHORE).result == {}
