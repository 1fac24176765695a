"""Softmax cross-entropy alone, everything else as in emd.py: the row "Softmax CE" of the study.

    python launch.py --config=configs/ce.py           # or configs/ce.py:paper

The study: d-mean 2.21 mm (4-fold cross-validation).
"""

from configs import emd


def get_config(recipe: str = ""):
    config = emd.get_config(recipe)
    config.loss.name = "ce"
    return config
