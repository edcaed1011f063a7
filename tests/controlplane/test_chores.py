"""One process at a time does a chore, whoever starts it; a claim whose process died is taken over."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone

from controlplane import chores, rota, series, thresholds
from controlplane.models import Chore, Metric, Suggestion
from tests.controlplane.test_stores import RECORD
from tests.controlplane.test_watch import save, traffic

pytestmark = pytest.mark.django_db


def earlier(name: str, **ago_s: float) -> None:
    """Move a chore's times into the past."""
    moved = {field: timezone.now() - timedelta(seconds=seconds) for field, seconds in ago_s.items()}
    Chore.objects.filter(pk=name).update(**moved)


def test_a_chore_is_claimed_once_and_again_when_its_period_is_over():
    claim = chores.take("dust", 60.0)
    assert claim is not None and chores.is_held("dust")
    assert chores.take("dust", 60.0) is None and chores.take("dust") is None
    claim.end("clean", {"rooms": 3})
    assert not chores.is_held("dust")
    assert chores.take("dust", 60.0) is None  # done a moment ago
    assert not chores.is_due("dust", 60.0) and chores.is_due("dust", 0.0)
    earlier("dust", began_at=55.0)  # a little early is in time
    assert chores.is_due("dust", 60.0) and chores.take("dust", 60.0) is not None
    row = Chore.objects.get(pk="dust")
    assert (row.said, row.result, row.failed) == ("clean", {"rooms": 3}, False)  # of the last that ended


@pytest.mark.django_db(transaction=True)
def test_of_many_at_the_same_moment_one_gets_it():
    def attempt(_: int) -> bool:
        try:
            return chores.take("dust", 60.0) is not None
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(8))) == 1


def test_a_claim_of_a_dead_process_is_free_at_once():
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    claim = chores.take("dust", 3600.0)
    me = Chore.objects.get(pk="dust").owner
    Chore.objects.update(owner=me.replace(chores._me(), f"{chores.socket.gethostname()}:{int(gone.stdout)}"))
    assert not chores.is_held("dust") and chores.is_due("dust", 3600.0)
    assert chores.take("dust", 3600.0) is not None  # what it began is due, not done
    with pytest.raises(chores.ClaimLost):
        claim.end("late")


def test_on_another_machine_the_lease_decides_and_progress_renews_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(chores, "TOLD_EVERY_S", 0.0)
    claim = chores.take("dust")
    far = Chore.objects.get(pk="dust").owner.replace(chores.socket.gethostname(), "elsewhere")
    Chore.objects.update(owner=far)
    assert chores.take("dust") is None
    earlier("dust", lease_until=1.0)
    second = chores.take("dust")
    assert second is not None
    with pytest.raises(chores.ClaimLost):
        claim.progress(1, 2)
    earlier("dust", lease_until=1.0)
    second.progress(1, 2)
    row = Chore.objects.get(pk="dust")
    assert row.done == 0.5 and row.lease_until > timezone.now()


def test_what_fails_says_so_and_is_given_back():
    with pytest.raises(ValueError, match="no broom"), chores.held(chores.take("dust")):
        raise ValueError("no broom")
    row = Chore.objects.get(pk="dust")
    assert (row.owner, row.failed, row.said) == ("", True, "failed: no broom")


@pytest.mark.usefixtures("seeded")
def test_the_rota_does_each_chore_once_a_period_and_a_stand_in_waits_longer():
    now = timezone.now().timestamp()
    traffic(30, total_s=9.0)(now)
    save([RECORD])  # of 2023: past its time
    series.save([])
    assert rota.do("watch") == "1 fired, 0 hold, 0 cleared"
    assert Suggestion.objects.get().rule == "slow-response-tinyllama"
    assert rota.do("retention").startswith("1 records deleted")
    assert rota.do("roll-up") == "0 minutes became hours" and not Metric.objects.exists()
    assert [rota.do(name) for name in rota.ROTA] == [None, None, None]
    earlier("watch", began_at=100.0)
    assert rota.do("watch", stand_in=True) is None
    assert rota.do("watch") == "0 fired, 1 hold, 0 cleared"
    earlier("watch", began_at=200.0)
    assert rota.do("watch", stand_in=True) == "0 fired, 1 hold, 0 cleared"


@pytest.mark.usefixtures("seeded")
def test_a_cycle_of_the_tuner_is_due_by_its_threshold_unless_switched_off():
    assert rota.tune_is_due()
    chores.take(rota.TUNE).end("nothing to do")
    assert not rota.tune_is_due()
    earlier(rota.TUNE, began_at=301.0)
    assert rota.tune_is_due() and not rota.tune_is_due(stand_in=True)
    thresholds.change({"tuning_mode": "off"}, "anna", "quiet")
    assert not rota.tune_is_due()
