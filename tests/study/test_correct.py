"""The curve of the simulated corrector, by hand."""

import numpy as np

from study.correct import SHARES, correct


def test_what_is_left_after_each_share():
    errors_mm = np.array([4.0, 1.0, 3.0, 0.0])
    curve = dict(zip(SHARES.round(2), correct(errors_mm), strict=True))
    assert [curve[share] for share in (0.0, 0.25, 0.5, 0.75, 1.0)] == [2.0, 1.0, 0.75, 0.0, 0.0]
    both = correct(np.stack([errors_mm, errors_mm[::-1]]))
    np.testing.assert_allclose(both[0], list(curve.values()))
    assert both[1][25] == 2.0 and both[1][50] == 1.25
