"""What a run's numbers are worth, kept as JSON."""

import json
import math

import pytest

from fetal_jax.calibration import Calibration
from fetal_jax.conformal import Region, Scale
from fetal_jax.runs.calibrations import Calibrations, from_content, to_content

REGION = Region(0.9, 2.5, Scale((0.1, -0.2), 0.4, -3.0, 2.0), 12)


@pytest.mark.parametrize("region", [None, REGION, REGION._replace(size=math.inf, subjects=3)])
def test_what_was_kept_comes_back(region):
    kept = Calibrations(Calibration(0.5, 0.9, 40), Calibration(1.0, 1.1, 30), region)
    text = json.dumps(to_content(kept), allow_nan=False)
    assert from_content(json.loads(text)) == kept


def test_an_older_version_had_no_radii():
    one = {"offset": 0.5, "slope": 0.9, "n": 40}
    assert from_content(one) == Calibrations(Calibration(0.5, 0.9, 40))
    assert from_content({"confidence": one, "visibility": one}).region is None
