"""What the numbers that a run's networks give beside a point are worth, and how that is kept."""

import math
from typing import Any, NamedTuple

from fetal_jax.calibration import Calibration
from fetal_jax.conformal import Region, Scale


class Calibrations(NamedTuple):
    """Of a run: of its confidence, of its chances that a landmark can be seen, of its radii.

    region: None of a run without radii.
    """

    confidence: Calibration = Calibration()
    visibility: Calibration = Calibration()
    region: Region | None = None


def to_content(calibrations: Calibrations) -> dict[str, Any]:
    """As JSON has it: an infinite size is null."""
    content: dict[str, Any] = {
        name: getattr(calibrations, name)._asdict() for name in ("confidence", "visibility")
    }
    if (region := calibrations.region) is not None:
        size = region.size if math.isfinite(region.size) else None
        content["region"] = region._asdict() | {"size": size, "scale": region.scale._asdict()}
    return content


def from_content(content: dict[str, Any]) -> Calibrations:
    """Of `to_content`, or of an older version, which judged less.

    Raises:
      AttributeError, KeyError, TypeError, ValueError: it is neither.
    """
    if "offset" in content:  # of a version that judged nothing but confidence
        return Calibrations(Calibration(**content))
    rest = dict(content)
    region = rest.pop("region", None)
    if region is not None:
        scale = Scale(**region["scale"])
        size = math.inf if region["size"] is None else float(region["size"])
        scale = scale._replace(log_mm=tuple(map(float, scale.log_mm)))
        region = Region(**region | {"size": size, "scale": scale})
    return Calibrations(**{name: Calibration(**one) for name, one in rest.items()}, region=region)
