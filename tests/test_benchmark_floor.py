"""The benchmark's floor counts the network that is there; needs no PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import floor
from fetal_jax.models.resunet3d import ResUNet3D

WIDTHS = (4, 8, 16)


def test_convolutions_are_those_of_the_network():
    model = ResUNet3D(5, widths=WIDTHS, groups=0, shortcut_size=1)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)))
    kernels = sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim > 1)
    counted = 0
    for share_in, share_out, before, after, taps in floor.list_convolutions(WIDTHS, 5):
        counted += before * after * taps * (8 if share_in < share_out else 1)
    assert counted == kernels


def test_work_of_one_level_by_hand():
    operations, moved = floor.compute_work(2, 3, (4,), batch=1, whole_step=False)
    # 1 -> 4 and the shortcut have no gradient towards the volume; 4 -> 4, 4 -> 3
    products = 2 * (27 * 4 + 4) + 3 * (27 * 16 + 12)
    assert operations == 2 * 8 * products
    values = 2 * (2 * 1 + 2 * 4) + (3 * 4 + 2 * 4) + (3 * 4 + 2 * 3)
    assert moved == 4 * 8 * values


def test_work_grows_with_the_voxels():
    small = floor.compute_work(8, 5, WIDTHS, batch=1, whole_step=False)
    large = floor.compute_work(16, 5, WIDTHS, batch=1, whole_step=False)
    np.testing.assert_allclose(np.array(large) / np.array(small), 8.0)
