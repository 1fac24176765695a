"""Two looks: a small network finds the face's frame, a second one looks there, in finer voxels.

Both look at as many voxels; the box of the second follows from the training cases.

python launch.py --config=configs/fine.py   # phantom cohort, minutes on two cores
"""

from configs import emd


def get_config(recipe: str = ""):
    config = emd.get_config(recipe)
    config.aligned.on = True
    if not recipe:
        config.grid.side = 24
    return config
