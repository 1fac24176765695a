"""A soft-argmax coordinate loss (DSNT, Nibali et al. 2018): a baseline that the study has not.

    python launch.py --config=configs/dsnt.py

The distance of the map's mean position from the landmark, and the divergence of the map from the
target; everything else as in emd.py, its decoder too.
"""

from configs import emd


def get_config(recipe: str = ""):
    config = emd.get_config(recipe)
    config.loss.name = "dsnt"
    config.loss.lambda2 = 0.02  # 2 / (side in mm), as there, for a cube of 100 mm
    return config
