"""Threads that work ahead: the same results in the same order, and never more than are allowed."""

import threading
import time

import pytest

from fetal_jax.pipeline import run_ahead


class Room:
    """How much of what was made has not been put away, now and at the most."""

    def __init__(self):
        self.lock, self.held, self.most, self.count = threading.Lock(), 0, 0, 0

    def add(self, size):
        with self.lock:
            self.held += size
            self.most = max(self.most, self.held)
            self.count += size > 0


def use(made, room, sizes, ahead):
    """Take all that `made` gives; each is put away before the next is asked for.

    ahead: how many may have been made, at the least, when one has been taken.
    """
    taken = []
    for number in made:
        deadline = time.monotonic() + 10
        while room.count < min(number + ahead, len(sizes)) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.002)  # for one too many
        taken.append(number)
        room.add(-sizes[number])
    return taken


@pytest.mark.parametrize("most", [2, 3, 5])
def test_all_in_order_and_no_more_than_so_many_at_once(most):
    room = Room()

    def make(number):
        room.add(1)
        time.sleep(0.003 * (number % 3 == 0))  # the first of three is overtaken
        return number

    taken = use(run_ahead(make, iter(range(12)), most=most), room, [1] * 12, most)
    assert taken == list(range(12))
    assert room.most == most


def test_no_more_than_the_bound_and_what_is_larger_alone():
    sizes, room, beside = [3, 3, 2, 9, 1, 3, 4, 2], Room(), []

    def make(number):
        room.add(sizes[number])
        beside.append((number, room.held))
        return number

    made = run_ahead(make, range(8), most=5, measure=sizes.__getitem__, bound=7)
    assert use(made, room, sizes, 1) == list(range(8))
    held = dict(beside)
    assert held.pop(3) == 9
    assert held[1] == 6 and max(held.values()) <= 7


def test_with_two_they_are_made_one_after_the_other():
    busy = threading.Lock()

    def make(number):
        assert busy.acquire(blocking=False)
        time.sleep(0.002)
        busy.release()
        return number

    assert list(run_ahead(make, range(6), most=2)) == list(range(6))


def test_the_next_is_made_while_the_caller_works():
    made = [threading.Event() for _ in range(3)]

    def make(number):
        made[number].set()
        return number

    for number in run_ahead(make, range(3), most=2):
        assert made[min(number + 1, 2)].wait(5)


def test_a_stage_works_while_the_one_before_makes_the_next():
    """Not only once the next has been made: what is found is written at once."""
    written = [threading.Event() for _ in range(3)]

    def find():
        for number in range(3):
            assert number == 0 or written[number - 1].wait(5)
            yield number

    def write(number):
        written[number].set()
        return number

    assert list(run_ahead(write, find(), most=2)) == [0, 1, 2]


def test_an_error_comes_in_its_turn():
    def make(number):
        if number == 3:
            raise ValueError("three")
        return number

    made, taken = run_ahead(make, range(9), most=4), []
    with pytest.raises(ValueError, match="three"):
        for number in made:
            taken.append(number)
    assert taken == [0, 1, 2]


def test_what_was_found_is_written_though_the_next_cannot_be_found():
    written = []

    def find():
        yield from range(3)
        raise ValueError("the fourth")

    def write(number):
        time.sleep(0.005)
        written.append(number)

    with pytest.raises(ValueError, match="the fourth"):
        list(run_ahead(write, find(), most=2))
    assert written == [0, 1, 2]


def test_a_caller_who_stops_leaves_no_thread():
    before = threading.active_count()
    made = run_ahead(lambda number: number, range(100), most=4)
    assert next(made) == 0
    made.close()
    assert threading.active_count() == before
