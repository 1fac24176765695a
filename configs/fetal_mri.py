"""Three landmarks on MRI of the uterus: few fetuses, the head small and in any pose; real data.

python launch.py --mode=crossval --config=configs/fetal_mri.py --config.data.root=FETAL_MRI
"""

from configs import any_pose


def get_config(recipe: str = ""):
    config = any_pose.get_config(recipe)
    config.data.validation_share = 0.0  # eight fetuses: all train, the last checkpoint is used
    # a quarter of a metre in the middle of the scan, the head 12 voxels wide
    config.grid.side = 32
    config.grid.spacing_mm = 8.0
    config.augment.max_scale = 0.15
    config.augment.max_shift_vox = 4.0
    config.aligned.spacing_mm = 4.0
    config.aligned.margin_mm = 40.0  # the whole head
    config.aligned.max_degrees = 20.0  # three points leave a frame less sure than a face
    config.evaluation.radii_mm = (5.0, 10.0, 20.0)
    config.evaluation.confidence_radius_mm = 10.0
    return config
