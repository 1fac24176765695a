"""Training: the schedule's numbers, a loop that resumes bit for bit, and its log."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fetal_jax import losses
from fetal_jax.data import loader
from fetal_jax.errors import InputError
from fetal_jax.training import fit as train
from fetal_jax.training import parallel

OPTIM = {
    "lr": 0.1,
    "steps": 110,
    "warmup_steps": 10,
    "clip_norm": 0.0,
    "weight_decay": 0.0,
    "decay": "cosine",
}


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.0), (5, 0.5), (10, 1.0), (60, 0.505), (110, 0.01), (35, 0.01 + 0.99 * 0.853553)],
)
def test_cosine_schedule(step, share):
    _, schedule = train.build_optimizer(**OPTIM)
    assert float(schedule(step)) == pytest.approx(0.1 * share, rel=1e-5)


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (5, 0.5), (10, 1.0), (110, 1.0)])
def test_constant_schedule(step, share):
    _, schedule = train.build_optimizer(**OPTIM | {"decay": "constant"})
    assert float(schedule(step)) == pytest.approx(0.1 * share)


def test_without_warm_up_the_first_step_counts():
    _, schedule = train.build_optimizer(**OPTIM | {"decay": "constant", "warmup_steps": 0})
    assert float(schedule(0)) == pytest.approx(0.1)


def test_a_short_run_warms_up_for_half_of_it():
    _, schedule = train.build_optimizer(**OPTIM | {"steps": 8})
    assert [float(schedule(i)) for i in (2, 4)] == pytest.approx([0.05, 0.1])


def test_an_unknown_decay_is_refused():
    with pytest.raises(InputError, match="config.optim.decay: expected 'cosine' or 'constant'"):
        train.build_optimizer(**OPTIM | {"decay": "linear"})


def update(optimizer, params, gradient):
    updates, _ = optimizer.update(gradient, optimizer.init(params), params)
    return optax.apply_updates(params, updates)


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_first_step_of_adam_by_hand(clip_norm):
    optimizer, _ = train.build_optimizer(
        **OPTIM | {"warmup_steps": 0, "weight_decay": 0.2, "clip_norm": clip_norm}
    )
    params, gradient = np.array([1.0, -2.0], np.float32), np.array([3e-8, -4e-8], np.float32)
    # m / (sqrt(v) + 1e-8) of the first step; far too small to be clipped
    expected = params - 0.1 * (gradient / (np.abs(gradient) + 1e-8) + 0.2 * params)
    np.testing.assert_allclose(update(optimizer, params, gradient), expected, rtol=1e-5)


def test_clipping_by_hand():
    optimizer, _ = train.build_optimizer(
        **OPTIM | {"warmup_steps": 0, "clip_norm": 1e-8, "decay": "constant"}
    )
    params, gradient = np.zeros(2, np.float32), np.array([3.0, -4.0], np.float32)
    clipped = np.array([0.6e-8, -0.8e-8])
    expected = -0.1 * clipped / (np.abs(clipped) + 1e-8)
    np.testing.assert_allclose(update(optimizer, params, gradient), expected, rtol=1e-4)


class ToyNetwork:
    """Two maps of its own, bent by the image."""

    def init(self, key, x):
        return {"field": jax.random.normal(key, (2, 4, 4, 4))}

    def apply(self, params, x):
        return params["field"][None] * (1 + x[..., 0][:, None])


STEPS = 12
OPTIMIZER, SCHEDULE = train.build_optimizer(**OPTIM | {"steps": STEPS, "warmup_steps": 2})
AUGMENTATION = {"max_degrees": 9.0, "max_scale": 0.1, "max_shift_vox": 0.4} | {
    "max_gamma": 0.3,
    "max_gain": 0.2,
    "max_noise": 0.05,
}


@pytest.fixture(scope="module")
def step_function():
    return parallel.map_step(
        partial(
            train.train_step,
            apply=ToyNetwork().apply,
            optimizer=OPTIMIZER,
            sum_losses=partial(
                losses.sum_losses, name="ce", kind="gaussian", width_mm=2.0, spacing_mm=2.0
            ),
            augmentation=AUGMENTATION,
        ),
        jax.local_devices()[:1],
    )


@pytest.fixture
def prepared(make_prepared):
    return make_prepared(np.random.default_rng(0).uniform(0.5, 2.5, (5, 2, 3)), side=4)


def fit(workdir, step_function, prepared, *, steps=STEPS, validate=None, **kwargs):
    state = train.create_state(jax.random.key(0), ToyNetwork(), OPTIMIZER, 4)
    settings = {"seed": 3, "batch": 2, "with_completed": True, "log_every": 1, "save_every": 4}
    return train.fit(
        workdir,
        state,
        step_function,
        validate,
        prepared,
        steps=steps,
        schedule=SCHEDULE,
        **settings | kwargs,
    )


def read_log(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def without_time(records):
    times = ("seconds", "waiting_share")
    return [{k: v for k, v in record.items() if k not in times} for record in records]


def check_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


class Stopped(Exception):
    pass


def test_fit_resumes_bit_for_bit(tmp_path, step_function, prepared, capsys):
    whole = fit(tmp_path / "a", step_function, prepared)
    assert int(whole.step) == STEPS
    assert "going on" not in capsys.readouterr().out
    calls = 0

    def stopping(state, key, batch):
        nonlocal calls
        calls += 1
        if calls in (7, 10):  # at step 7; then, from step 5 on, at step 7 again
            raise Stopped
        return step_function(state, key, batch)

    for _ in range(2):
        with pytest.raises(Stopped):
            fit(tmp_path / "b", stopping, prepared)
    again = fit(tmp_path / "b", stopping, prepared)
    assert capsys.readouterr().out.count(f"going on from step 4 of {STEPS}\n") == 2
    check_same(whole, again)
    log = read_log(tmp_path / "b")
    assert [record["step"] for record in log] == list(range(1, STEPS + 1))
    assert without_time(log) == without_time(read_log(tmp_path / "a"))
    seconds = [record["seconds"] for record in log]
    assert seconds == sorted(seconds)
    assert train.read_seconds(tmp_path / "b") == seconds[-1]
    check_same(whole, fit(tmp_path / "b", stopping, prepared))  # finished: nothing is done


def test_loss_falls_and_the_log_says_so(tmp_path, step_function, prepared):
    validated = []

    def validate(params):
        validated.append(np.asarray(params["field"]).copy())
        return 5.0 - len(validated), lambda: np.full((2, 3, 3), len(validated), np.uint8)

    state = fit(
        tmp_path, step_function, prepared, steps=30, validate=validate, log_every=7, save_every=15
    )
    log = read_log(tmp_path)
    assert [record["step"] for record in log] == [7, 14, 15, 21, 28, 30]
    assert log[-1]["loss"] < log[0]["loss"] - 0.3
    assert [r["validation_d_mean_mm"] for r in log if "validation_d_mean_mm" in r] == [4.0, 3.0]
    np.testing.assert_array_equal(validated[-1], state.params["field"])
    events = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert events.count(b"\x89PNG") == 2 and b"validation_d_mean_mm" in events
    for record in log:
        assert record["lr"] == pytest.approx(float(SCHEDULE(record["step"] - 1)))


def test_a_log_record_is_the_mean_since_the_last(tmp_path, prepared):
    def step(state, key, batch):  # the loss is the step's number, the norm its square
        n = int(state.step) + 1
        found = {"loss": np.float32(n), "grad_norm": np.float32(n * n)}
        return state._replace(step=jnp.int32(n)), found

    fit(tmp_path, step, prepared, steps=5, log_every=2, save_every=3)
    log = read_log(tmp_path)
    assert [(r["step"], r["loss"], r["grad_norm"]) for r in log] == [
        (2, 1.5, 2.5),
        (3, 3.0, 9.0),
        (4, 4.0, 16.0),
        (5, 5.0, 25.0),
    ]


@pytest.mark.parametrize(
    ("loss_at", "norm_at", "step", "what"),
    [
        pytest.param(6, 6, 6, "loss, got nan", id="both at once"),
        pytest.param(7, 6, 6, "grad norm, got nan", id="the gradient first"),
        pytest.param(4, 4, 4, "loss, got nan", id="the last before the log"),
        pytest.param(5, 9, 5, "loss, got nan", id="the first after the log"),
    ],
)
def test_a_loss_that_is_not_finite_names_the_step_and_its_cases(
    tmp_path, prepared, loss_at, norm_at, step, what
):
    def fail(state, key, batch):
        n = int(state.step) + 1
        found = {
            "loss": np.float32(np.nan if n >= loss_at else 1.0),
            "grad_norm": np.float32(np.nan if n >= norm_at else 1.0),
        }
        return state._replace(step=jnp.int32(n)), found

    with pytest.raises(InputError) as caught:
        fit(tmp_path, fail, prepared, log_every=4, save_every=8)
    names = [f"c{i}" for i in loader.draw_indices(5, step - 1, batch=2, seed=3)]
    (line,) = caught.value.problems
    assert line.startswith(f"step {step}: expected a finite {what}, on {names[0]}, {names[1]}; ")
    assert not [p for p in (tmp_path / "checkpoints").glob("*") if p.name.isdigit()]


def test_log_drops_what_came_after_the_checkpoint(tmp_path):
    lines = [json.dumps({"step": s, "loss": 1.0, "seconds": s / 2}) for s in (2, 4, 6, 8)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 9, "lo')
    log = train.Log(tmp_path, 5)
    assert log.seconds_before == 2.0
    log.write({"step": 6, "loss": 3.0, "seconds": 9.0})
    log.close()
    assert [(r["step"], r["loss"]) for r in read_log(tmp_path)] == [(2, 1.0), (4, 1.0), (6, 3.0)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_new_log_is_empty(tmp_path):
    log = train.Log(tmp_path, 0)
    log.close()
    assert log.seconds_before == 0.0 and train.read_seconds(tmp_path) == 0.0


def test_mean_error_is_of_the_visible(make_prepared):
    points = np.full((2, 2, 3), 3.0)
    points[1, 1] = np.nan
    prepared = make_prepared(points, completed=[(0, 1)])
    found = prepared.points_mm + np.array([[[3.0, 4, 0], [100, 0, 0]], [[0, 0, 1.0], [0, 0, 0]]])
    assert train.mean_error(found, prepared) == pytest.approx(3.0)  # of 5 and 1
    prepared.visible[:] = False
    assert np.isnan(train.mean_error(found, prepared))
