"""The loop: what runs when, what stops it, and a resume that gives the same numbers."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
import toy_detector as toy

from fetal_jax.training import checkpoint, fit
from fetal_jax.training.fit import NotFinite, StepMetrics


class OnDevice:
    """A step's loss, which says when it is fetched."""

    def __init__(self, events, step):
        self.events, self.step = events, step

    def __array__(self, dtype=None, copy=None):
        self.events.append(f"fetch {self.step}")
        return np.array(float(self.step), dtype)


def run(batches, *, last_step, log_every, save_every, losses=None):
    """fit with a step that counts; the last state, and what happened, in order."""
    events = []

    def step(state, key, examples):
        assert key == "key" and examples == f"examples {state + 1}"
        events.append(f"step {state + 1}")
        loss = losses[state] if losses else OnDevice(events, state + 1)
        return state + 1, {"loss": loss, "grad_norm": 1.0}

    state = fit.fit(
        0,
        step,
        batches,
        key="key",
        last_step=last_step,
        log_every=log_every,
        log=lambda latest: events.append(("log", latest)),
        save_every=save_every,
        save=lambda latest, state: events.append(("save", latest, state)),
    )
    return state, events


def make_batches(count):
    return ((n, f"examples {n}") for n in range(1, count + 1))


def shorten(events):
    return [e if isinstance(e, str) else f"{e[0]} {e[1].step}" for e in events]


def test_the_next_step_runs_before_the_last_are_fetched():
    """And what is saved is saved before the next one runs, which overwrites the state."""
    state, events = run(make_batches(5), last_step=5, log_every=2, save_every=4)
    assert state == 5
    assert shorten(events) == [
        "step 1",
        "step 2",
        "step 3",  # while it runs, those before are fetched
        "fetch 1",
        "fetch 2",
        "log 2",
        "step 4",
        "fetch 3",
        "fetch 4",
        "save 4",  # and not logged twice
        "step 5",
        "fetch 5",
        "save 5",  # the last of the training
    ]
    assert [event[2] for event in events if event[0] == "save"] == [4, 5]


def test_each_step_is_measured_once():
    _, events = run(make_batches(7), last_step=7, log_every=3, save_every=100)
    found = {
        e[1].step: [float(m["loss"]) for m in e[1].metrics] for e in events if isinstance(e, tuple)
    }
    assert found == {3: [1, 2, 3], 6: [4, 5, 6], 7: [7]}


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        pytest.param(4, "log 4", id="a log was due"),
        pytest.param(3, "log 2", id="none was"),
    ],
)
def test_an_iterator_that_ends_early(count, expected):
    state, events = run(make_batches(count), last_step=99, log_every=2, save_every=50)
    assert state == count
    assert [e for e in shorten(events) if "log" in e or "save" in e][-1] == expected
    assert not any("save" in e for e in shorten(events))


def test_no_batch_is_no_step():
    assert run([], last_step=4, log_every=1, save_every=1) == (0, [])


class Computed(float):
    """A number that is computed, or is still being computed."""

    def __new__(cls, value, ready):
        self = super().__new__(cls, value)
        self.is_ready = lambda: ready
        return self


@pytest.mark.parametrize(("ready", "expected"), [(True, [0.75, 0.75]), (False, [0.75, 0.375])])
def test_the_share_of_waiting(monkeypatch, ready, expected):
    """Three seconds for a batch, one for a step; who waits while a step runs waits for that."""
    now, shares = [0.0], []
    monkeypatch.setattr(fit, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def wait():
        for n in (1, 2):
            now[0] += 3
            yield n, None

    def step(state, key, examples):
        now[0] += 1
        return state, {"loss": Computed(0.0, ready), "grad_norm": Computed(0.0, ready)}

    fit.fit(
        None,
        step,
        wait(),
        key=None,
        last_step=2,
        log_every=1,
        log=None,
        save_every=1,
        save=lambda latest, state: shares.append(latest.waiting_share),
    )
    assert shares == expected


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("losses", "step", "reached"),
    [
        pytest.param([1.0] * 3 + [NAN] * 5, 4, 4, id="at a save"),
        pytest.param([1.0] * 2 + [-INF] * 6, 3, 4, id="before a save"),
        pytest.param([1.0] + [NAN] * 7, 2, 3, id="at a log, while the next step runs"),
        pytest.param([1.0] * 4 + [NAN] * 4, 5, 7, id="after a save"),
    ],
)
def test_what_is_not_finite_stops_before_anything_of_it_is_saved(losses, step, reached):
    events = []
    with pytest.raises(NotFinite, match=f"step {step}: expected a finite loss, got") as caught:
        fit.fit(
            0,
            lambda state, key, examples: (
                events.append(state + 1) or state + 1,
                {"loss": losses[state], "grad_norm": 1.0},
            ),
            make_batches(8),
            key=None,
            last_step=8,
            log_every=2,
            log=lambda latest: events.append(("log", latest.step)),
            save_every=4,
            save=lambda latest, state: events.append(("save", latest.step)),
        )
    assert caught.value.step == step
    assert max(e for e in events if isinstance(e, int)) == reached
    assert all(e[1] < step for e in events if isinstance(e, tuple))


@pytest.mark.parametrize(
    ("values", "step", "name"),
    [
        pytest.param([(1, 1), (NAN, NAN)], 6, "loss", id="both at once"),
        pytest.param([(1, NAN), (NAN, 1)], 5, "grad norm", id="the gradient first"),
        pytest.param([(1, 1), (1, INF)], 6, "grad norm", id="infinite"),
    ],
)
def test_the_first_that_went_wrong_is_named(values, step, name):
    metrics = [{"loss": np.float32(a), "grad_norm": np.float32(b)} for a, b in values]
    with pytest.raises(NotFinite) as caught:
        fit.check_finite(6, metrics)
    assert (caught.value.step, caught.value.name) == (step, name)


# ---- a resume ----

STEPS = 12


class Stopped(Exception):
    pass


def train(folder, stop_at=None):
    """From the folder's latest checkpoint; the state, and the loss of each step it ran."""
    manager, found = checkpoint.open_checkpoints(folder), {}
    start = manager.latest_step() or 0
    state = toy.make_state(toy.SGD)
    if start:
        state = checkpoint.restore_checkpoint(manager, start, state)

    def load():
        for step in range(start + 1, STEPS + 1):
            if step == stop_at:
                raise Stopped
            yield step, toy.make_examples(step)

    def keep(latest: StepMetrics):
        found[latest.step] = latest.metrics

    def save(latest, state):
        keep(latest)
        checkpoint.save_checkpoint(manager, latest.step, state, 1 / latest.step)

    try:
        state = fit.fit(
            state,
            toy.make_step(toy.SGD, 1, augmented=True),
            load(),
            key=jax.random.key(3),
            last_step=STEPS,
            log_every=1,
            log=keep,
            save_every=4,
            save=save,
        )
    except Stopped:
        state = None
    finally:
        manager.close()
    return start, state, found


def test_a_resume_gives_the_same_numbers_bit_for_bit(tmp_path):
    _, whole, latest = train(tmp_path / "whole")
    assert list(latest) == list(range(1, STEPS + 1)) and int(whole.step) == STEPS
    assert len({float(m[0]["loss"]) for m in latest.values()}) == STEPS

    starts, again = [], {}
    for stop_at in (7, 6, 11, None):
        start, state, found = train(tmp_path / "stopped", stop_at)
        starts.append(start)
        again |= found
    assert starts == [0, 4, 4, 8]
    assert jax.tree.structure(state) == jax.tree.structure(whole)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again == latest
