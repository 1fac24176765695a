"""An RPN-style detector of five landmarks, our reconstruction of the study's baseline: row "RPN".

    python launch.py --config=configs/rpn.py         # or configs/rpn.py:paper

Chen et al. (ISBI 2020, arXiv 2004.00207) say that a 3D region proposal network finds boxes round
the landmarks, with IoU-balanced losses and a distance-based graph prior; which five landmarks,
which anchors, what backbone and which spacing they do not say. Those are chosen here. The study
reports 4.38 mm for it.
"""

from ml_collections import ConfigDict

from configs import emd


def get_config(recipe: str = ""):
    config = emd.get_config(recipe)
    config.model.name = "rpn3d"
    config.data.labels = ("n", "prn", "sn", "chL", "chR")
    config.rpn = ConfigDict()
    config.rpn.stride_vox = 4 if recipe == "paper" else 2  # between cells: 4 mm or so
    config.rpn.anchor_mm = 20.0
    config.rpn.prior_weight = 0.1
    return config
