"""What speaks for a landmark's being seen, and the curve that is fitted to it."""

import jax
import numpy as np
import pytest
from scipy import special, stats

from fetal_jax import visibility_model
from fetal_jax.visibility_model import fit_visibility, gather_evidence, judge_visibility

SHAPE = (7, 9, 12)


@pytest.mark.parametrize(
    ("expected", "nearest"),
    [((1.2, 3.0, 7.6), (1, 3, 8)), ((90.0, -3.0, 4.0), (6, 0, 4)), ((0.0, 8.0, 11.0), (0, 8, 11))],
)
def test_evidence_is_arithmetic(expected, nearest):
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2, SHAPE).astype(np.float32)
    volume = rng.random(SHAPE, np.float32)
    p = special.softmax(logits.astype(float))
    found = np.unravel_index(p.argmax(), SHAPE)
    far = np.linalg.norm(np.stack(np.indices(SHAPE), -1) - np.array(found), axis=-1)
    wanted = [logits.max(), stats.entropy(p.ravel())]
    wanted += [np.log(p[far <= r].sum() + 1e-6) for r in (1.5, 5.0)]
    wanted.append(np.log1p(np.linalg.norm(np.subtract(found, nearest))))
    for size in (5, 9):
        padded = np.pad(volume, size // 2)
        for at in (found, nearest):
            cube = padded[tuple(slice(v, v + size) for v in at)]
            wanted.append(cube.mean())
    evidence = jax.jit(gather_evidence)(logits, volume, np.float32(expected))
    np.testing.assert_allclose(evidence, wanted, rtol=1e-4, atol=1e-4)


def draw(n, *, offsets, slope, seed, noise=4):
    """Cases whose chances are a curve of the first number; the others say nothing."""
    rng = np.random.default_rng(seed)
    evidence = rng.normal(0, 1, (n, len(offsets), 1 + noise)) * [3.0, *[0.1] * noise] + 7.0
    chance = special.expit(np.array(offsets) + slope * (evidence[..., 0] - 7.0))
    return evidence, rng.random(chance.shape) < chance, chance


def test_chances_that_follow_the_evidence_are_found(monkeypatch):
    """By landmark as well: the second is seldom seen. Shrunk hardly at all, the curve is the true
    one; as it is, chances are less sure and in the same order."""
    offsets = [3.0, -2.0, 1.0]
    known = draw(600, offsets=offsets, slope=1.0, seed=0)
    evidence, _, chance = draw(200, offsets=offsets, slope=1.0, seed=1)
    every = np.ones(known[1].shape, bool)
    model = fit_visibility(known[0], known[1], every)
    found = np.asarray(judge_visibility(model, np.float32(evidence)))
    for i in range(3):
        assert stats.spearmanr(found[:, i], chance[:, i]).statistic > 0.98
    assert np.abs(found.mean(axis=0) - chance.mean(axis=0)).max() < 0.06
    for name in ("SHRINK_COMMON", "SHRINK_OWN", "SHRINK_OFFSET"):
        monkeypatch.setattr(visibility_model, name, 1e-7)
    model = fit_visibility(known[0], known[1], every)
    found = np.asarray(judge_visibility(model, np.float32(evidence)))
    assert np.abs(found - chance).mean() < 0.04


def test_what_nobody_judged_does_not_count():
    evidence, visible, _ = draw(80, offsets=[1.0, 0.0], slope=1.0, seed=0)
    judged = np.random.default_rng(5).random(visible.shape) < 0.7
    judged[:, 1] &= np.arange(80) < 2  # hardly ever: it follows the other
    model = fit_visibility(evidence, visible, judged)
    changed = np.where(judged[..., None], evidence, 1e3)
    again = fit_visibility(changed, visible ^ ~judged, judged)
    for one, other in zip(model, again, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    assert model.weights[1, 0] > 0.3 * model.weights[0, 0] > 0.1


def test_a_number_that_never_varies_says_nothing():
    evidence, visible, _ = draw(60, offsets=[0.5, 0.0], slope=1.0, seed=2)
    evidence[..., -1] = 4.0
    model = fit_visibility(evidence, visible, np.ones(visible.shape, bool))
    np.testing.assert_allclose(model.weights[:, -1], 0.0, atol=1e-9)
    assert np.isfinite(model.offsets).all()
