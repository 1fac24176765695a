"""What is set on an ultrasound machine: what a hospital has, and what varies from scan to scan."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Site(NamedTuple):
    """One hospital's machines. A setting that varies from scan to scan is [2], its mean and sd.

    Widths of the point spread are full widths at half maximum, at the focus.
    """

    frequency_mhz: Array
    dynamic_range_db: Array
    gain_db: Array
    focus_mm: Array  # range of the focus, from the fan's apex
    time_gain: Array  # share of soft tissue's loss that is compensated
    time_gain_bend_db: Array  # amplitudes of the bends of the compensation's curve
    haze_db: Array  # near-field clutter, relative to a flat bone's echo
    reverberation_db: Array  # the near wall's first repeated echo, as haze_db
    compounding: Array  # weight of a second look, 0 to 0.5
    speckle_reduction: Array  # share of the speckle's contrast that a filter takes, 0 to 1
    dropout_share: float  # how often each of two sectors has little contact
    half_angles_deg: Array  # [2] of a plane, of the sweep
    axial_mm: float
    lateral_mm: float
    sweep_mm: float  # at REFERENCE_MM; a constant angle
    field: float  # as a share of the requested field of view
    spacing: Array  # [3] as a share of the requested spacing, along R, A, S


NEAR_SITE = Site(
    frequency_mhz=(4.5, 0.3),
    dynamic_range_db=(58.0, 3.0),
    gain_db=(4.0, 2.0),
    focus_mm=(86.0, 8.0),
    time_gain=(0.4, 0.06),
    time_gain_bend_db=(0.0, 1.0),
    haze_db=(-44.0, 4.0),
    reverberation_db=(-38.0, 4.0),
    compounding=(0.1, 0.15),
    speckle_reduction=(0.15, 0.15),
    dropout_share=0.08,
    half_angles_deg=(37.0, 36.0),
    axial_mm=0.60,
    lateral_mm=1.4,
    sweep_mm=3.0,
    field=1.0,
    spacing=(0.95, 0.95, 1.15),
)
FAR_SITE = Site(
    frequency_mhz=(6.0, 0.4),
    dynamic_range_db=(47.0, 5.0),
    gain_db=(1.0, 4.0),
    focus_mm=(78.0, 12.0),
    time_gain=(0.45, 0.12),
    time_gain_bend_db=(0.0, 2.0),
    haze_db=(-36.0, 5.0),
    reverberation_db=(-32.0, 5.0),
    compounding=(0.3, 0.15),
    speckle_reduction=(0.75, 0.2),
    dropout_share=0.15,
    half_angles_deg=(34.0, 38.0),
    axial_mm=0.54,
    lateral_mm=1.3,
    sweep_mm=3.4,
    field=0.96,
    spacing=(1.15, 0.9, 0.95),
)
SITES = ("north", "south")


def select_site(site: Array) -> Site:
    """The machines of site 0 or 1."""
    return jax.tree.map(
        lambda a, b: jnp.stack([a, b])[site], _as_arrays(NEAR_SITE), _as_arrays(FAR_SITE)
    )


def _as_arrays(site: Site) -> Site:
    return Site(*(jnp.array(value, jnp.float32) for value in site))


class Machine(NamedTuple):
    """The settings of one scan; fields as in Site."""

    frequency_mhz: Array
    dynamic_range_db: Array
    gain_db: Array
    focus_mm: Array
    time_gain: Array
    time_gain_bend_db: Array  # [2]
    haze_db: Array
    reverberation_db: Array
    repeat_mm: Array  # between the repeated echoes of the near wall
    compounding: Array
    speckle_reduction: Array
    dropout: Array  # [2, 4] sectors with little contact: dB, theta, half width, phi where it ends
    half_angles_deg: Array  # [2]
    axial_mm: Array
    lateral_mm: Array
    sweep_mm: Array


def sample_machine(key: Array, site: Site) -> Machine:
    """Sample the settings of one scan at a site."""
    setting_key, dropout_key = jax.random.split(key)
    n = jax.random.truncated_normal(setting_key, -2.0, 2.0, (11,))
    u = jax.random.uniform(dropout_key, (2, 5))

    def vary(setting: Array, i: int) -> Array:
        return setting[0] + setting[1] * n[i]

    bend = site.time_gain_bend_db
    there = u[:, 0] < site.dropout_share
    dropout = jnp.stack(
        [
            jnp.where(there, 8.0 + 14.0 * u[:, 1], 0.0),
            jnp.deg2rad(site.half_angles_deg[0]) * (2.0 * u[:, 2] - 1.0),
            jnp.deg2rad(1.5 + 4.5 * u[:, 3]),
            jnp.deg2rad(site.half_angles_deg[1]) * (2.0 * u[:, 4] - 1.0),
        ],
        axis=1,
    )
    return Machine(
        frequency_mhz=vary(site.frequency_mhz, 0),
        dynamic_range_db=vary(site.dynamic_range_db, 1),
        gain_db=vary(site.gain_db, 2),
        focus_mm=vary(site.focus_mm, 3),
        time_gain=vary(site.time_gain, 4),
        time_gain_bend_db=bend[0] + bend[1] * n[5:7],
        haze_db=vary(site.haze_db, 7),
        reverberation_db=vary(site.reverberation_db, 8),
        repeat_mm=6.0 + 2.0 * n[7],
        compounding=jnp.clip(vary(site.compounding, 9), 0.0, 0.5),
        speckle_reduction=jnp.clip(vary(site.speckle_reduction, 10), 0.0, 0.95),
        dropout=dropout,
        half_angles_deg=site.half_angles_deg,
        axial_mm=site.axial_mm,
        lateral_mm=site.lateral_mm,
        sweep_mm=site.sweep_mm,
    )
