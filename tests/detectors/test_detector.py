"""What every detector shares: a network's parameters, what is counted, and what is asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax.detectors.detector import (
    Found,
    apply_model,
    bind_model,
    choose_counted,
    find_each,
    init_params,
)
from fetal_jax.examples import Examples
from fetal_jax.models.resunet3d import ResUNet3D

MODEL = ResUNet3D(2, (2, 3))


def test_parameters_do_not_depend_on_the_size_of_the_input():
    def make(shape):
        return jax.eval_shape(MODEL.init, jax.random.key(0), jnp.zeros((1, *shape, 1)))

    init, apply = bind_model(MODEL)
    params = jax.eval_shape(init, jax.random.key(0))
    assert params == make((8, 4, 12))
    found = jax.eval_shape(apply, params, jnp.zeros((3, 8, 4, 12)))
    assert found.logits.shape == (3, 2, 8, 4, 12)


def test_init_and_apply_are_functions_of_the_network():
    class Echo:
        widths = (1, 1)

        def init(self, key, x):
            return key, x.shape

        def apply(self, params, x):
            return params, x

    assert init_params("key", model=Echo()) == ("key", (1, 4, 4, 4, 1))
    params, x = apply_model("params", np.ones((2, 3, 4, 5)), model=Echo())
    assert params == "params" and x.shape == (2, 3, 4, 5, 1)


@pytest.mark.parametrize(("on_completed", "field"), [(True, "present"), (False, "visible")])
def test_what_is_trained_on(on_completed, field):
    examples = Examples(np.zeros((1, 2, 2, 2)), present=[[True, True]], visible=[[True, False]])
    assert choose_counted(examples, on_completed=on_completed) is getattr(examples, field)


@pytest.mark.parametrize("points", [True, False])
@pytest.mark.parametrize("shown", [True, False])
def test_only_what_is_asked_for_is_found(points, shown):
    """A number for each landmark, [B, L]; what is measured and shown of it is a sum."""
    outputs = jnp.arange(6.0).reshape(2, 3)
    targets = jnp.arange(18.0).reshape(2, 3, 3)
    examples = Examples(
        volumes=jnp.zeros((2, 4, 4, 4)),
        points_vox=targets if points else None,
        shown=jnp.array([2, 0]) if shown else None,
    )
    found = find_each(
        outputs,
        examples,
        find_one=lambda out: Found(jnp.full(3, out), jnp.full(3, -out), out / 10),
        score_one=lambda out, target: (out + target[:1], out - target[:1]),
        show_one=lambda out: jnp.full((2, 2, 2), out),
    )
    np.testing.assert_array_equal(found.points_vox[1, 2], [5.0, 5.0, 5.0])
    np.testing.assert_array_equal(found.argmax_vox[0, 1], [-1.0, -1.0, -1.0])
    np.testing.assert_allclose(found.mass, outputs / 10, rtol=1e-6)
    if points:
        np.testing.assert_array_equal(found.local_mm, (outputs + targets[..., 0])[..., None])
        np.testing.assert_array_equal(found.local_guess_mm, (outputs - targets[..., 0])[..., None])
    else:
        assert found.local_mm is None and found.local_guess_mm is None
    if shown:
        np.testing.assert_array_equal(found.map[:, 0, 0, 0], [2.0, 3.0])
    else:
        assert found.map is None
