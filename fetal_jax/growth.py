"""Published growth equations: a mean size in mm from the gestational age in weeks.

Each takes a number or an array of any shape. A NumPy array gives a NumPy array in double precision;
all else is computed with JAX, so that a curve can be jitted, mapped and differentiated.
"""

from types import ModuleType

import jax.numpy as jnp
import numpy as np
from jax import Array

Ages = float | np.ndarray | Array  # gestational ages in weeks


def interocular_mm(age_weeks: Ages) -> Ages:
    """Interocular diameter IOD, between the orbits' inner rims (Sukonpan & Phupong 2008)."""
    return 2.304 + 0.510 * age_weeks


def binocular_mm(age_weeks: Ages) -> Ages:
    """Binocular diameter BOD, between the orbits' outer rims (Sukonpan & Phupong 2008)."""
    return 2.590 + 1.420 * age_weeks


def philtrum_mm(age_weeks: Ages) -> np.ndarray | Array:
    """Philtrum length, subnasale to labiale superius (Gull 2005)."""
    return _maths(age_weeks).exp(2.778577 - 23.476723 / age_weeks)


def facial_height_mm(age_weeks: Ages) -> np.ndarray | Array:
    """Nasion to gnathion (den Boogert et al., doi 10.1080/14767058.2017.1384807)."""
    return 10.0 * (-16.10 + 3.78 * _maths(age_weeks).log(7.0 * age_weeks))


def facial_width_mm(age_weeks: Ages) -> np.ndarray | Array:
    """Zygion to zygion (den Boogert et al., doi 10.1080/14767058.2017.1384807)."""
    return 10.0 * (-17.18 + 4.19 * _maths(age_weeks).log(7.0 * age_weeks))


def head_circumference_mm(age_weeks: Ages) -> np.ndarray | Array:
    """Head circumference HC (INTERGROWTH-21st; Papageorghiou et al. 2014, Lancet 384:869)."""
    log_age = _maths(age_weeks).log(age_weeks)
    return -28.2849 + 1.69267 * age_weeks**2 - 0.397485 * age_weeks**2 * log_age


def biparietal_mm(age_weeks: Ages) -> Ages:
    """Biparietal diameter BPD (INTERGROWTH-21st; Papageorghiou et al. 2014, Lancet 384:869)."""
    return 5.60878 + 0.158369 * age_weeks**2 - 0.00256379 * age_weeks**3


def _maths(age_weeks: Ages) -> ModuleType:
    """NumPy for what is NumPy's, else jax.numpy."""
    return np if isinstance(age_weeks, np.ndarray | np.generic) else jnp
