"""Checkpoints: the best and the latest stay, bit for bit; another network is one line."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fetal_jax.errors import InputError
from fetal_jax.training.checkpoint import (
    open_checkpoints,
    restore_checkpoint,
    restore_params,
    save_checkpoint,
)
from fetal_jax.training.step import TrainState

OPTIMIZER = optax.adam(1e-3)


def make_state(seed, shape=(3, 5), name="kernel"):
    params = {"params": {"down0": {name: jax.random.normal(jax.random.key(seed), shape)}}}
    opt_state = OPTIMIZER.init(params)
    with jax.numpy_dtype_promotion("standard"):  # optax's own
        _, opt_state = OPTIMIZER.update(params, opt_state)  # moments that are not zero
    return TrainState(jnp.int32(seed), params, opt_state)


def list_steps(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


@pytest.mark.parametrize(
    ("errors", "kept", "best"),
    [
        pytest.param([5.0, 2.0, 4.0, 3.0, 6.0, 2.5], [2, 6], 2, id="the best is old"),
        pytest.param([5.0, 4.0, 3.0, 2.0], [4], 4, id="the best is the latest"),
        pytest.param([1.0, 2.0, 3.0], [1, 3], 1, id="the best is the first"),
    ],
)
def test_the_best_and_the_latest_stay(tmp_path, errors, kept, best):
    manager = open_checkpoints(tmp_path)
    for step, error in enumerate(errors, start=1):
        save_checkpoint(manager, step, make_state(step), error)
    assert manager.best_step() == best and manager.latest_step() == len(errors)
    manager.close()
    assert list_steps(tmp_path) == kept
    again = open_checkpoints(tmp_path)
    assert again.best_step() == best and again.latest_step() == len(errors)
    again.close()


def test_the_old_best_survives_a_restart(tmp_path):
    for step, error in ((1, 2.0), (2, 5.0), (3, 4.0), (4, 3.0)):
        manager = open_checkpoints(tmp_path)
        save_checkpoint(manager, step, make_state(step), error)
        manager.close()
    assert list_steps(tmp_path) == [1, 4]


def test_round_trip_bit_for_bit(tmp_path):
    state = make_state(7)
    manager = open_checkpoints(tmp_path)
    save_checkpoint(manager, 7, state, 1.0)
    manager.close()
    for like in (make_state(0), jax.eval_shape(lambda: make_state(0))):
        manager = open_checkpoints(tmp_path)
        found = restore_checkpoint(manager, 7, like)
        manager.close()
        assert jax.tree.structure(found) == jax.tree.structure(state)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("other", "expected", "came"),
    [
        pytest.param(make_state(0, (3, 6)), "(3, 6)", "(3, 5)", id="another width"),
        pytest.param(make_state(0, (3, 5, 1)), "(3, 5, 1)", "(3, 5)", id="another rank"),
        pytest.param(make_state(0, name="weight"), "None", "(3, 5)", id="another layer"),
    ],
)
def test_another_network_is_one_line(tmp_path, other, expected, came):
    manager = open_checkpoints(tmp_path)
    save_checkpoint(manager, 3, make_state(3), 1.0)
    with pytest.raises(InputError) as caught:
        restore_checkpoint(manager, 3, other)
    manager.close()
    (line,) = caught.value.problems
    assert "\n" not in line
    assert line.startswith(f"{tmp_path}/3: expected the network of this config, with ")
    assert f"down0/kernel of shape {expected}, got {came}" in line


@pytest.fixture
def everywhere(tmp_path):
    """A manager of what four devices saved, and the state."""
    mesh = Mesh(np.array(jax.devices()), ("devices",))
    assert len(mesh.devices) == 4
    state = jax.device_put(make_state(5), NamedSharding(mesh, PartitionSpec()))
    manager = open_checkpoints(tmp_path)
    save_checkpoint(manager, 5, state, 1.0)
    yield manager, state
    manager.close()


def check_on_first_device(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.devices() == {jax.local_devices()[0]} and a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_many_devices_save_and_one_restores(everywhere):
    """As when a run of four GPUs is used on a laptop, which knows shapes alone."""
    manager, state = everywhere
    check_on_first_device(
        restore_checkpoint(manager, 5, jax.eval_shape(lambda: make_state(0))), state
    )


def test_parameters_alone(everywhere):
    """With no optimizer, whose moments are not asked for."""
    manager, state = everywhere
    like = jax.eval_shape(lambda: make_state(0).params)
    check_on_first_device(restore_params(manager, 5, like), state.params)


@pytest.mark.parametrize(
    ("like", "expected", "came"),
    [
        pytest.param(make_state(0, (3, 6)).params, "(3, 6)", "(3, 5)", id="another width"),
        pytest.param(make_state(0, name="weight").params, "None", "(3, 5)", id="another layer"),
    ],
)
def test_parameters_of_another_network_are_one_line(everywhere, like, expected, came):
    manager, _ = everywhere
    with pytest.raises(InputError) as caught:
        restore_params(manager, 5, like)
    (line,) = caught.value.problems
    assert "\n" not in line and line.startswith(f"{manager.directory}/5: expected the network of ")
    assert f"down0/kernel of shape {expected}, got {came}" in line


@pytest.mark.parametrize("name", ["a[1]", "back\\slash", "star*and?mark", "$x$ é"])
def test_a_folder_s_name_is_only_a_name(tmp_path, name):
    folder, state = tmp_path / name / "checkpoints", make_state(3)
    for step in (1, 2):
        manager = open_checkpoints(folder)
        save_checkpoint(manager, step, state, float(step))
        manager.close()
    assert list_steps(folder) == [1, 2]
    manager = open_checkpoints(folder)
    assert manager.latest_step() == 2
    found = restore_checkpoint(manager, 2, state)
    params = restore_params(manager, 2, jax.eval_shape(lambda: make_state(0)).params)
    manager.close()
    for one in (found.params, params):
        np.testing.assert_array_equal(*jax.tree.leaves((one, state.params)))


def test_a_flipped_bit_anywhere_in_a_checkpoint_is_noticed(tmp_path):
    manager = open_checkpoints(tmp_path)
    save_checkpoint(manager, 4, make_state(4), 1.0)
    manager.close()
    files = [path for path in (tmp_path / "4").rglob("*") if path.is_file()]
    assert len(files) > 5
    for path in files:
        whole = path.read_bytes()
        damaged = bytearray(whole or b"x")
        damaged[len(damaged) // 2] ^= 8
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=str(tmp_path / "4")) as caught:
            open_checkpoints(tmp_path)
        assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)
        path.write_bytes(whole)
    open_checkpoints(tmp_path).close()
    (tmp_path / "4" / "default" / "manifest.ocdbt").unlink()
    with pytest.raises(
        InputError, match="manifest.ocdbt: expected the checkpoint as .* no such file"
    ):
        open_checkpoints(tmp_path)


def test_a_damaged_checkpoint_of_before_digests_is_one_line(tmp_path):
    manager = open_checkpoints(tmp_path)
    save_checkpoint(manager, 4, make_state(4), 1.0)
    manager.close()
    (tmp_path / "4" / "sha256.json").unlink()
    for name in ("default/_METADATA", "metrics/metrics"):
        path = tmp_path / "4" / name
        whole = path.read_bytes()
        path.write_bytes(b"{" + whole[: len(whole) // 2])
        with pytest.raises(InputError, match=str(tmp_path)) as caught:
            manager = open_checkpoints(tmp_path)
            manager.best_step()
            restore_checkpoint(manager, 4, make_state(0))
        assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)
        path.write_bytes(whole)
