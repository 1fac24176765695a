"""Two looks at scans that nobody has aligned: the first network learns every rotation.

python launch.py --config=configs/any_pose.py
"""

from configs import fine


def get_config(recipe: str = ""):
    config = fine.get_config(recipe)
    config.augment.max_degrees = 180.0
    # left and right are told apart only by what the whole head looks like
    config.model.widths = (16, 32, 64, 128, 256)
    config.train.steps = 1600
    return config
