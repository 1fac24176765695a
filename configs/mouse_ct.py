"""45 landmarks on 24 micro-CT heads of mice (Maga et al. 2017), in any pose: real data.

    python launch.py --config=configs/mouse_ct.py --config.data.root=MOUSE_CT \
        --config.data.split=MOUSE_CT/split.csv
"""

from configs import emd


def get_config(recipe: str = ""):
    config = emd.get_config(recipe)
    config.data.validation_share = 0.0  # 18 heads: all of them train, the last checkpoint is used
    config.grid.side = 48
    # in any pose, left and right are told apart only by what the whole head looks like
    config.model.widths = (16, 32, 64, 128, 256)
    config.augment.max_degrees = 45.0
    config.augment.max_shift_vox = 3.0
    config.train.steps = 400  # left and right are still mixed up; the second look mends it
    config.aligned.on = True
    config.aligned.spacing_mm = 0.56
    config.aligned.margin_mm = 2.0
    config.aligned.steps = 1000
    config.evaluation.radii_mm = (0.5, 1.0, 2.0)
    config.evaluation.confidence_radius_mm = 1.0
    return config
