"""Two looks: a small network finds the face's frame, a second one looks there, in finer voxels.

python launch.py --config=configs/fine.py   # phantom cohort, minutes on two cores
"""

from configs import emd


def get_config(recipe: str = ""):
    config = emd.get_config(recipe)
    config.aligned.on = True
    config.grid.side = 32
    config.aligned.spacing_mm = 1.1
    config.aligned.margin_mm = 8.0
    return config
