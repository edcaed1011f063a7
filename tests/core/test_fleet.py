"""Several nodes on a virtual clock: nodes die, come back and are drained; every request still ends once."""

import heapq
import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer.core import commands as cmd
from optimizer.core import events as ev
from optimizer.core.fleet import Fleet
from optimizer.core.job import Job
from optimizer.core.thresholds import Thresholds
from optimizer.core.tiers import STRATEGY_CATALOGUE
from tests.core.machine import DEEPSEEK, EVICT_S, QWEN, TINY, job

MODELS = STRATEGY_CATALOGUE.models


class Hall:
    """Carries a fleet's commands out; loads, evictions and runs take fixed times."""

    def __init__(self, nodes: int = 2, **thresholds: int) -> None:
        self.names = [f"n{number}" for number in range(nodes)]
        self.fleet = Fleet(dict.fromkeys(self.names, Thresholds(**thresholds)), STRATEGY_CATALOGUE)
        self.now = 0.0
        self.jobs: dict[str, Job] = {}
        self.ends: dict[str, str] = {}
        self.starts: Counter[str] = Counter()
        self.started_on: dict[str, str] = {}
        self.dead: set[str] = set()
        self.drained: set[str] = set()
        self.loaded: dict[str, set[str]] = {name: set() for name in self.names}
        self.running: dict[str, str] = {}
        self.prefilled: set[str] = set()
        self.wakes: dict[str, float] = {}
        self._lives = Counter[str]()
        self._due: list[tuple[float, int, str, int, ev.Event]] = []
        self._ticks = itertools.count()
        for name in self.names:
            self.send(ev.ResidencyObserved(()), name)

    def send(self, event: ev.Event, node: str = "") -> None:
        if isinstance(event, ev.RequestArrived):
            self.jobs[event.job.id] = event.job
        self.wakes.pop(node, None)
        for place, command in self.fleet.handle(event, self.now, node):
            self._carry_out(place, command)
        self.fleet.invariants()

    def run_until(self, end: float) -> None:
        while True:
            due = self._due[0][0] if self._due else float("inf")
            node, wake = min(self.wakes.items(), key=lambda item: item[1], default=("", float("inf")))
            if min(due, wake) > end:
                break
            if wake < due:
                self.now = max(self.now, wake)
                self.send(ev.TimerFired(), node)
                continue
            self.now, _, node, life, event = heapq.heappop(self._due)
            if life == self._lives[node]:
                self._happen(node, event)
        self.now = max(self.now, end)

    def kill(self, node: str) -> None:
        if node in self.dead:
            return
        self.dead.add(node)
        self._lives[node] += 1
        self.loaded[node].clear()
        self.wakes.pop(node, None)
        self.running = {job_id: place for job_id, place in self.running.items() if place != node}
        self.send(ev.BackendLost("killed"), node)

    def revive(self, node: str) -> None:
        if node in self.dead:
            self.dead.discard(node)
            self.send(ev.BackendRecovered(()), node)

    def drain(self, node: str) -> None:
        self.drained.add(node)
        self.send(ev.NodeDrained(), node)

    def resume(self, node: str) -> None:
        self.drained.discard(node)
        self.send(ev.NodeResumed(), node)

    def _at(self, delay: float, node: str, event: ev.Event) -> None:
        heapq.heappush(self._due, (self.now + delay, next(self._ticks), node, self._lives[node], event))

    def _happen(self, node: str, event: ev.Event) -> None:
        match event:
            case ev.ModelLoaded(model):
                self.loaded[node].add(model)
            case ev.PrefillFinished(job_id):
                if job_id not in self.running:
                    return
                self.prefilled.add(job_id)
            case ev.GenerationFinished(job_id):
                if self.running.pop(job_id, None) is None:
                    return
                self._end(job_id, "finished")
            case ev.GenerationCancelled(job_id):
                self._end(job_id, "cancelled")
        self.send(event, node)

    def _end(self, job_id: str, how: str) -> None:
        assert job_id not in self.ends, f"{job_id} ended twice"
        self.ends[job_id] = how

    def _carry_out(self, node: str, command: cmd.Command) -> None:
        match command:
            case cmd.WakeAt(at):
                self.wakes[node] = at
            case cmd.Reject(job_id) | cmd.Fail(job_id):
                self._end(job_id, "rejected" if isinstance(command, cmd.Reject) else "failed")
            case _:
                assert node not in self.dead, f"{command} on a dead node"
        match command:
            case cmd.LoadModel(model):
                self._at(MODELS[model].load_s, node, ev.ModelLoaded(model, *[MODELS[model].footprint_mb] * 2, 1.0))
            case cmd.EvictModel(model):
                self.loaded[node].discard(model)
                self._at(EVICT_S, node, ev.ModelEvicted(model))
            case cmd.CancelGeneration(job_id):
                del self.running[job_id]
                self._at(0.01, node, ev.GenerationCancelled(job_id))
            case cmd.StartGeneration(job_id, model):
                assert model in self.loaded[node] and job_id not in self.running and job_id not in self.ends
                assert job_id not in self.prefilled, "begun again after its first token"
                self.running[job_id] = node
                self.starts[job_id] += 1
                self.started_on[job_id] = node
                run_s = self.jobs[job_id].expected_tokens / MODELS[model].decode_tps
                self._at(run_s / 4, node, ev.PrefillFinished(job_id))
                self._at(run_s, node, ev.GenerationFinished(job_id, 30, 60, run_s / 4, run_s))


def ask(hall: Hall, *names: str, model: str = TINY, **more: object) -> None:
    for name in names:
        hall.send(ev.RequestArrived(job(name, model, **more)))


def test_requests_for_two_models_that_do_not_fit_together_settle_on_a_node_each():
    hall = Hall()
    for number in range(10):
        ask(hall, f"q{number}", model=QWEN)
        ask(hall, f"d{number}", model=DEEPSEEK)
        hall.run_until(hall.now + 3)
    hall.run_until(300)
    assert set(hall.ends.values()) == {"finished"} and len(hall.ends) == 20
    homes = {
        model: {hall.started_on[i] for i, j in hall.jobs.items() if j.model == model} for model in (QWEN, DEEPSEEK)
    }
    assert homes[QWEN].isdisjoint(homes[DEEPSEEK])


def test_a_dead_node_gets_nothing_and_its_requests_are_begun_once_more_elsewhere():
    hall = Hall()
    hall.run_until(10)
    ask(hall, *"abcdef", tokens=2000)
    victim = hall.running["a"]
    assert Counter(hall.running.values()) == {"n0": 2, "n1": 2}
    on_victim = {job_id for job_id, node in hall.running.items() if node == victim}
    hall.kill(victim)
    hall.run_until(500)
    assert hall.ends == dict.fromkeys("abcdef", "finished")
    assert {job_id for job_id, count in hall.starts.items() if count == 2} == on_victim
    assert {hall.started_on[job_id] for job_id in on_victim} == {next(n for n in hall.names if n != victim)}


def test_a_stream_that_had_begun_fails_with_its_node_and_what_was_begun_twice_in_vain_fails_too():
    hall = Hall()
    hall.run_until(10)
    ask(hall, "streaming", tokens=1000)
    hall.run_until(hall.now + 5)
    assert hall.prefilled == {"streaming"}
    hall.kill(hall.running["streaming"])
    assert hall.ends == {"streaming": "failed"}
    ask(hall, "unlucky", tokens=10_000)
    hall.revive("n0"), hall.revive("n1")
    hall.run_until(hall.now + 10)
    hall.kill(hall.running["unlucky"])
    hall.run_until(hall.now + 10)
    hall.kill(hall.running["unlucky"])
    assert hall.ends["unlucky"] == "failed" and hall.starts["unlucky"] == 2


def test_requests_wait_where_every_node_is_lost_and_run_when_one_comes_back():
    hall = Hall()
    hall.kill("n0"), hall.kill("n1")
    ask(hall, "a", "b", "c")
    assert not hall.ends and not hall.running
    hall.revive("n1")
    hall.run_until(100)
    assert hall.ends == dict.fromkeys("abc", "finished") and set(hall.started_on.values()) == {"n1"}


def test_a_drained_node_ends_what_runs_gives_the_rest_away_empties_and_comes_back():
    hall = Hall()
    hall.run_until(10)
    ask(hall, *"abcdefgh", tokens=1200)
    running_there = {job_id for job_id, node in hall.running.items() if node == "n0"}
    hall.drain("n0")
    hall.run_until(200)
    assert hall.ends == dict.fromkeys("abcdefgh", "finished")
    assert {job_id for job_id, node in hall.started_on.items() if node == "n0"} == running_there
    assert not hall.loaded["n0"]
    hall.resume("n0")
    hall.run_until(220)
    assert TINY in hall.loaded["n0"]
    ask(hall, "x", "y", "z")
    assert "n0" in hall.running.values()


def test_the_only_node_that_is_drained_refuses():
    hall = Hall(nodes=1)
    hall.run_until(10)
    hall.drain("n0")
    ask(hall, "a")
    assert hall.ends == {"a": "rejected"}


def test_an_agents_limit_holds_over_all_nodes():
    hall = Hall(max_waiting_per_agent=2)
    hall.run_until(10)
    ask(hall, *"abcdefgh", agent="one", tokens=3000)
    assert list(hall.ends) == ["g", "h"] and len(hall.running) == 4


def test_a_node_with_nothing_to_do_takes_over_what_waits_elsewhere():
    hall = Hall()
    hall.run_until(10)
    hall.kill("n1")
    ask(hall, *"abcdef", tokens=1200)
    hall.revive("n1")
    hall.run_until(200)
    assert hall.ends == dict.fromkeys("abcdef", "finished")
    assert set(hall.started_on.values()) == {"n0", "n1"}


def test_the_picture_of_all_nodes_numbers_their_slots_through():
    hall = Hall()
    hall.run_until(10)
    ask(hall, *"abcdef", tokens=1200)
    view = hall.fleet.snapshot(hall.now)
    assert [slot.slot for slot in view.slots] == [0, 1, 2, 3]
    assert view.waiting == 2 and view.counters.arrived == 6
    [queue] = [queue for queue in view.queues if queue.model == TINY]
    assert (queue.waiting, queue.running) == (2, 4)
    assert hall.fleet.position("f", hall.now)[0] >= 1
    hall.kill("n0")
    assert not hall.fleet.snapshot(hall.now).lost


STEP = st.tuples(
    st.sampled_from(["ask", "ask", "ask", "kill", "revive", "drain", "resume", "cancel", "pass"]),
    st.integers(0, 2),
    st.sampled_from([TINY, QWEN, DEEPSEEK]),
    st.floats(0.0, 8.0),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=60), st.integers(1, 3))
def test_whatever_happens_to_the_nodes_every_request_ends_once_and_is_begun_at_most_twice(steps, nodes):
    hall = Hall(nodes)
    for number, (what, which, model, seconds) in enumerate(steps):
        node = hall.names[which % nodes]
        match what:
            case "ask":
                ask(hall, f"r{number}", model=model, agent=f"agent-{which}", tokens=200)
            case "cancel":
                for job_id in list(hall.jobs)[which::7]:
                    if hall.fleet.node_of(job_id) and job_id not in hall.running:
                        hall.ends.setdefault(job_id, "cancelled")
                        hall.send(ev.RequestCancelled(job_id))
            case "pass":
                hall.run_until(hall.now + seconds)
            case _:
                getattr(hall, what)(node)
    for node in hall.names:
        hall.revive(node)
        hall.resume(node)
    hall.run_until(hall.now + 20_000)
    assert set(hall.ends) == set(hall.jobs)
    assert all(count <= 2 for count in hall.starts.values())


@given(st.lists(st.tuples(st.sampled_from([TINY, QWEN, DEEPSEEK]), st.floats(0, 3)), max_size=30))
@settings(max_examples=40, deadline=None)
def test_the_same_log_gives_the_same_commands(asked):
    def log() -> list[object]:
        hall = Hall(3)
        found: list[object] = []
        for number, (model, seconds) in enumerate(asked):
            ask(hall, f"r{number}", model=model)
            hall.run_until(hall.now + seconds)
            found.append((hall.now, sorted(hall.running.items())))
        return found

    assert log() == log()
