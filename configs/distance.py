"""The distance penalty Σ p r^ω alone, everything else as in emd.py: the rows "Distance Penalty".

    python launch.py --config=configs/distance.py                          # ω 0.5
    python launch.py --config=configs/distance.py --config.loss.omega=2.0

The study: d-mean 2.37 mm (ω 0.5) and 3.24 mm (ω 2), on one split.
"""

from configs import emd


def get_config(recipe: str = ""):
    config = emd.get_config(recipe)
    config.loss.name = "distance"
    return config
