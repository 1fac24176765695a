"""Two looks at scans that nobody has aligned: the face may lie in any pose.

The first network looks at a scan from all sides, and the second one knows when it sees a face.

python launch.py --config=configs/any_pose.py
"""

from configs import fine


def get_config(recipe: str = ""):
    config = fine.get_config(recipe)
    config.aligned.poses = 24
    if not recipe:
        # any rotation is within 63° of a pose
        config.augment.max_degrees = 60.0
        config.train.steps = 1000
    return config
