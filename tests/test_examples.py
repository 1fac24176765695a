"""The batch as a tree: what is not known is no leaf, and one example of it has the same fields."""

import jax
import jax.numpy as jnp

from fetal_jax.examples import Examples


def test_what_is_not_known_is_no_leaf():
    assert len(jax.tree.leaves(Examples(volumes=jnp.zeros((2, 4, 4, 4))))) == 1
    examples = Examples(volumes=jnp.zeros((2, 4, 4, 4)), points_vox=jnp.zeros((2, 3, 3)))
    doubled = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), examples)
    assert doubled.points_vox.shape == (4, 3, 3) and doubled.visible is None


def test_mapped_it_is_one_example():
    examples = Examples(volumes=jnp.ones((2, 4, 4, 4)), places=jnp.array([5, 7], jnp.int32))

    def look(one):
        assert one.volumes.shape == (4, 4, 4) and one.present is None
        return one.places * 2

    assert jax.vmap(look)(examples).tolist() == [10, 14]
