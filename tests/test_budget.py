"""A training that ends when it was said to, under clocks that tests turn by hand."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from neocog.engine.budget import AGAIN, MARGIN, WRITE, Budget


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def train(
    budget: Budget, clock: Clock, step: float, slower_after: float = 1e9, by: float = 1.0
) -> list[float]:
    """Steps until the budget says stop; the share of time gone at each."""
    began, shares = clock.now, []
    while not budget.over():
        shares.append(budget.share())
        took = step * (by if clock.now - began > slower_after else 1.0)
        clock.now += took
        budget.stepped(took)
        if len(shares) > 100_000:
            raise AssertionError("it never ends")
    return shares


@settings(deadline=None)
@given(
    minutes=st.floats(1, 10),
    step=st.floats(0.1, 0.5),
    look=st.floats(1e-5, 1e-3),
    slower=st.floats(1.0, 4.0),
    when=st.floats(0.05, 0.6),
)
def test_what_follows_training_still_fits(
    minutes: float, step: float, look: float, slower: float, when: float
) -> None:
    """Also where the machine becomes slower on the way, and everything after with it."""
    clock = Clock()
    length = 60 * minutes
    rest = AGAIN * 2500 * look + 0.2 + WRITE
    # Where too little is left by then, nobody could be in time; it takes some steps to know.
    assume((1 - MARGIN) * length > when * length + slower * (5 * step + rest))
    budget = Budget(clock() + length, during=500, after=2000, clock=clock)
    budget.looked(500, 500 * look)
    budget.saved(0.1)
    train(budget, clock, step, when * length, slower)
    assert clock.now > 1000 + when * length + 5 * step  # it did become slower
    clock.now += slower * rest
    # The last step may be half too late.
    assert budget.ends - MARGIN * length - slower * step < clock.now
    assert clock.now <= budget.ends + slower * step / 2


@settings(deadline=None)
@given(step=st.floats(0.05, 1.0), slower=st.floats(0.25, 4.0))
def test_the_share_rises_to_the_end(step: float, slower: float) -> None:
    clock = Clock()
    budget = Budget(clock() + 120, during=0, after=0, clock=clock)
    shares = train(budget, clock, step, 40, slower)
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert 1 - 2.5 * max(1.0, slower) * step / 100 < shares[-1] <= 1


def test_a_moment_of_others_does_not_end_a_training() -> None:
    """Two seconds at a quarter of the pace, long before the end; what follows takes 23 s."""
    clock = Clock()
    budget = Budget(clock() + 120, during=5000, after=30_000, clock=clock)
    budget.looked(5000, 3.0)
    steps = 0
    while not budget.over():
        took = 1.2 if 40 <= clock.now - 1000 < 42 else 0.3
        clock.now += took
        budget.stepped(took)
        steps += 1
    assert clock.now - 1000 == pytest.approx(120 - 21 * AGAIN - WRITE - 1.2, abs=0.5)
    assert steps > 300


def test_steps_on_larger_pictures_are_no_slower_machine() -> None:
    """Only those of one size say how fast the machine is."""
    clock = Clock()
    budget = Budget(clock() + 120, during=5000, after=30_000, clock=clock)
    budget.looked(5000, 3.0)
    while not budget.over():
        side, took = (16, 0.1) if clock.now < 1040 else (32, 0.4)
        clock.now += took
        budget.stepped(took, (side, side))
    assert clock.now - 1000 == pytest.approx(120 - 21 * AGAIN - WRITE - 1.2, abs=0.5)


def test_a_resumed_training_goes_on_where_it_was() -> None:
    clock = Clock()
    budget = Budget(clock() + 50 + WRITE + 0.525, during=0, after=0, spent=50, clock=clock)
    assert budget.share() == pytest.approx(0.5, abs=0.01)


def test_once_over_it_stays_over() -> None:
    clock = Clock()
    budget = Budget(clock() + 10, during=0, after=1, clock=clock)
    budget.stepped(1.0)
    clock.now += 7.2
    assert budget.over()
    clock.now -= 5  # an estimate that was too dark
    assert budget.over()


def test_a_look_is_worth_it_only_where_it_leaves_time_for_more() -> None:
    clock = Clock()
    budget = Budget(clock() + 100, during=100, after=100, clock=clock)
    budget.stepped(0.5)
    budget.looked(100, 3.0)
    assert not budget.pause()  # the last one was just now
    clock.now += 1.5
    assert budget.pause()
    clock.now += budget.left - 3.4
    assert not budget.pause()
    assert not budget.over()


def test_steps_on_their_way_take_their_time_too() -> None:
    clock = Clock()
    budget = Budget(clock() + 100, during=0, after=0, clock=clock)
    budget.stepped(1.0)
    clock.now += budget.left - 4
    assert not budget.over()
    assert not budget.over(pending=3)
    assert budget.over(pending=4)
