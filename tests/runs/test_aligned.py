"""config.aligned, and the folder of the second network."""

import numpy as np
import pytest
from framed_cases import fit, make_config

from configs import emd
from fetal_jax.errors import InputError
from fetal_jax.runs import aligned, folder
from fetal_jax.runs.config_table import check_config
from fetal_jax.visibility_model import VisibilityModel


@pytest.fixture(scope="module")
def fitted():
    return fit()


def test_the_second_network_s_config_is_one_of_a_run(fitted):
    frame, _, _ = fitted
    config = make_config(**{"aligned.steps": 7, "aligned.widths": (4, 8), "train.epochs": 3})
    derived = check_config(aligned.derive_config(config, frame.box))
    assert derived.grid.spacing_mm == frame.box.spacing_mm
    assert (derived.train.steps, derived.train.epochs) == (7, 0)
    assert derived.model.widths == (4, 8) and derived.augment.max_degrees == 0.0
    assert derived.augment.max_gamma == config.augment.max_gamma


def test_a_run_of_before_looks_once():
    config = emd.get_config()
    del config.aligned
    assert not aligned.is_on(check_config(config))


def test_what_tells_what_can_be_seen_is_kept(tmp_path):
    (tmp_path / aligned.FOLDER).mkdir()
    assert aligned.read_visibility(tmp_path) is None
    rng = np.random.default_rng(0)
    model = VisibilityModel(rng.normal(size=3), rng.normal(size=(3, 9)))
    aligned.write_visibility(tmp_path, model)
    for one, other in zip(aligned.read_visibility(tmp_path), model, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    path = tmp_path / aligned.FOLDER / "visibility.json"
    for content in ({}, {"offsets": [1], "weights": [[1], [2]]}):
        folder.write_json(path, content)
        with pytest.raises(
            InputError, match=r"visibility.json: expected (what a run learned|a file of a run)"
        ):
            aligned.read_visibility(tmp_path)
