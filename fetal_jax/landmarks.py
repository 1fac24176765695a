"""The 19 landmarks of the fetal face: labels, sides, names and definitions.

The order of LABELS is the order of the channels wherever a data set names no other. A label ends in
L or R on the child's own left or right; midline labels have no such ending.
"""

MIDLINE = ("n", "prn", "sn", "ls", "li", "sl", "pg")
PAIRS = ("en", "ex", "al", "ac", "cph", "ch")  # stems: enL and enR, and so on
LABELS = MIDLINE + tuple(stem + side for stem in PAIRS for side in "LR")
# label -> the label on the other side; a midline label is its own
MIRROR = {
    label: label if label in MIDLINE else label[:-1] + ("R" if label[-1] == "L" else "L")
    for label in LABELS
}

_TERMS = {
    "n": ("nasion", "deepest point of the midline between forehead and bridge of the nose"),
    "prn": ("pronasale", "most forward point of the tip of the nose"),
    "sn": ("subnasale", "midline corner where the columella meets the upper lip"),
    "ls": ("labiale superius", "midline point on the upper edge of the upper lip's red"),
    "li": ("labiale inferius", "midline point on the lower edge of the lower lip's red"),
    "sl": ("sublabiale", "deepest midline point of the furrow between lower lip and chin"),
    "pg": ("pogonion", "most forward midline point of the chin"),
    "en": ("endocanthion", "inner corner of the eye, where the lids meet"),
    "ex": ("exocanthion", "outer corner of the eye, where the lids meet"),
    "al": ("alare", "most lateral point of the wing of the nose"),
    "ac": ("alar curvature point", "where the wing of the nose runs into the cheek"),
    "cph": ("crista philtri", "where the ridge of the philtrum meets the upper lip's red"),
    "ch": ("cheilion", "corner of the mouth"),
}


def _describe(label: str) -> tuple[str, str]:
    """(name, definition) of a label."""
    if label in _TERMS:
        return _TERMS[label]
    side = {"L": "left", "R": "right"}[label[-1]]
    name, definition = _TERMS[label[:-1]]
    return f"{side} {name}", f"{definition}; the child's {side}"


NAMES = {label: _describe(label)[0] for label in LABELS}
DEFINITIONS = {label: _describe(label)[1] for label in LABELS}
