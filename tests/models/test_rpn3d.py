"""The detector's network: its cells, its start, and that a cell sees what is far from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fetal_jax import boxes
from fetal_jax.models.rpn3d import RPN3D

VOLUME = (2, 8, 16, 8, 1)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_row_for_each_anchor(stride):
    model = RPN3D(landmarks=3, widths=(2, 4, 6), stride=stride)
    volumes = jax.ShapeDtypeStruct(VOLUME, jnp.float32)
    (found,), _ = jax.eval_shape(model.init_with_output, jax.random.key(0), volumes)
    assert found.shape == (2, 3, len(boxes.make_anchors(VOLUME[1:4], stride)), 5)
    assert found.dtype == jnp.float32


@pytest.fixture(scope="module")
def tiny():
    model = RPN3D(landmarks=2, widths=(4, 6), stride=2)
    volumes = np.random.default_rng(0).uniform(size=VOLUME).astype(np.float32)
    key = jax.random.key(0, impl="rbg")  # compiles in a tenth of the time
    return model, jax.jit(model.init)(key, volumes), volumes


def test_boxes_start_as_their_anchors(tiny):
    model, params, volumes = tiny
    found = jax.jit(model.apply)(params, volumes).cells
    np.testing.assert_allclose(
        jax.nn.sigmoid(found[..., 0]), jnp.full((2, 2, 128), 0.01), atol=0.01
    )
    assert np.abs(found[..., 1:]).max() < 0.5


def test_a_cell_looks_at_its_own_place(tiny):
    """The gradient of one cell's score lies round its anchor."""
    model, params, volumes = tiny
    anchors = np.asarray(boxes.make_anchors(VOLUME[1:4], 2))
    cell = 70

    def score(v):
        return model.apply(params, v).cells[0, 0, cell, 0]

    seen = np.abs(jax.jit(jax.grad(score))(jnp.asarray(volumes)))[0, ..., 0]
    at = (np.indices(seen.shape) * seen**2).sum(axis=(1, 2, 3)) / (seen**2).sum()
    assert np.linalg.norm(anchors[cell] - at) < 2
    assert (seen > 0).mean() > 0.5  # the norms, and the level above, reach far


@pytest.mark.parametrize(
    ("shape", "stride", "words"),
    [
        ((1, 6, 8, 8, 1), 2, "sides a multiple of 4, got"),
        ((1, 8, 8, 8, 2), 2, "expected volumes"),
        (VOLUME, 3, "expected a stride of 1, 2, 4"),
        (VOLUME, 8, "up to 4, got 8"),
    ],
)
def test_what_cannot_be_is_refused(shape, stride, words):
    model = RPN3D(landmarks=1, widths=(2, 2, 2), stride=stride)
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))
