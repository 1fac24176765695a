"""The 19 landmarks: their order, their sides, their names."""

from fetal_jax import landmarks


def test_labels_are_the_channels_in_order():
    assert " ".join(landmarks.LABELS) == (
        "n prn sn ls li sl pg enL enR exL exR alL alR acL acR cphL cphR chL chR"
    )
    assert len(landmarks.LABELS) == 7 + 2 * 6 == 19


def test_mirror_swaps_the_sides_of_pairs_only():
    mirror = landmarks.MIRROR
    assert tuple(mirror) == landmarks.LABELS
    assert mirror["exL"] == "exR" and mirror["cphR"] == "cphL" and mirror["prn"] == "prn"
    assert all(mirror[other] == label for label, other in mirror.items())
    assert {label for label, other in mirror.items() if label == other} == set(landmarks.MIDLINE)


def test_names_and_definitions_say_the_side():
    assert tuple(landmarks.NAMES) == tuple(landmarks.DEFINITIONS) == landmarks.LABELS
    assert landmarks.NAMES["n"] == "nasion"
    assert landmarks.NAMES["exL"] == "left exocanthion"
    assert landmarks.DEFINITIONS["chR"] == "corner of the mouth; the child's right"
    assert len(set(landmarks.NAMES.values())) == len(set(landmarks.DEFINITIONS.values())) == 19
