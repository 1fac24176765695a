"""What tests of several modes share: scans, and what an older version left in a run's folder."""

import numpy as np
import pytest
from scans import POSED, SCANS, make_noise

from fetal_jax.io.volumes import write_nifti


@pytest.fixture(scope="session")
def scans(tmp_path_factory):
    """Files of noise: scans of three sizes and four poses, all of SCANS being preprocess_jax's."""
    folder = tmp_path_factory.mktemp("scans")
    for i, (shape, affine) in enumerate(map(SCANS.__getitem__, POSED)):
        write_nifti(folder / f"{i}.nii.gz", make_noise(shape), affine)
    return folder


@pytest.fixture(scope="session")
def rename_arrays():
    """rename_arrays(path) of predictions, as they were called in runs of before."""

    def run(path):
        with np.load(path) as file:
            arrays = dict(file)
        del arrays["mass"]
        np.savez_compressed(path, **arrays)

    return run
