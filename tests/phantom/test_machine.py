"""What is set on a machine differs from site to site, and from scan to scan as the site says."""

import numpy as np
import pytest

from fetal_jax.phantom.machine import Site, select_site


def test_two_sites_differ():
    a, b = (select_site(site) for site in (0, 1))
    for name in Site._fields:
        assert not np.array_equal(getattr(a, name), getattr(b, name)), name
    assert 40 <= float(b.dynamic_range_db[0]) < float(a.dynamic_range_db[0]) <= 60
    assert 0.3 <= float(b.axial_mm) < float(b.lateral_mm) < float(b.sweep_mm) <= 4.0


@pytest.mark.parametrize("index", [0, 1])
def test_settings_vary_from_scan_to_scan_as_the_site_says(sample_settings, index):
    site = select_site(index)
    machines, _ = sample_settings(site)
    for name in ("frequency_mhz", "dynamic_range_db", "gain_db", "focus_mm", "time_gain"):
        mean, sd = map(float, getattr(site, name))
        found = np.asarray(getattr(machines, name))
        assert found.mean() == pytest.approx(mean, abs=0.7 * sd), name
        assert 0.5 * sd < found.std() < 1.2 * sd, name
    for name in ("compounding", "speckle_reduction"):
        found = np.asarray(getattr(machines, name))
        assert 0.0 <= found.min() < found.max() < 1.0, name
    assert (np.asarray(machines.dropout[..., 0]) > 0).any()
