"""A wall clock that jumps is doubted for a day, one that creeps is not."""

from controlplane.clock import DOUBT_S, ClockDoubt


class Clocks:
    def __init__(self) -> None:
        self.wall, self.monotonic = 1_700_000_000.0, 50.0
        self.doubt = ClockDoubt(lambda: self.wall, lambda: self.monotonic)

    def after(self, seconds: float, jump_s: float = 0.0) -> bool:
        self.monotonic += seconds
        self.wall += seconds + jump_s
        return self.doubt.justified()


def test_time_that_passes_is_no_jump_and_neither_is_a_correction():
    clocks = Clocks()
    assert not any(clocks.after(3600, jump_s) for jump_s in (0.0, 5.0, -300.0, 0.0))


def test_a_jump_either_way_is_doubted_for_a_day_and_said_once(caplog):
    for jump_s in (10 * 365 * 86_400.0, -7200.0):
        clocks, caplog.records[:] = Clocks(), []
        caplog.clear()
        assert clocks.after(3600, jump_s)
        assert all(clocks.after(3600) for _ in range(20))
        assert len(caplog.records) == 1 and ("forward" if jump_s > 0 else "back") in caplog.text
        assert not clocks.after(DOUBT_S)


def test_the_jump_home_is_a_jump_too():
    clocks = Clocks()
    assert clocks.after(1, 86_400.0) and clocks.after(DOUBT_S, -86_400.0)
