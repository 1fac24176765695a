"""A cohort of noise and a network of one level: runs that take seconds and end in every file."""

import csv
from pathlib import Path

import numpy as np

from configs import emd
from fetal_jax.io.markups import write_landmarks
from fetal_jax.io.volumes import write_nifti
from fetal_jax.runs.folder import read_json, write_json
from fetal_jax.runs.results import read_results, save_results

ROOT = Path(__file__).parents[1]
SIDE = 12
AFFINE = np.array([[-2.0, 0, 0, 11], [0, -2.0, 0, 11], [0, 0, 2.0, -11], [0, 0, 0, 1]])
LABELS = ("L", "R", "nose")


def write_cohort(root):
    """Nine scans of eight children at site a, two of site b."""
    rng = np.random.default_rng(0)
    rows = ["case,subject,site,gestational_age_weeks,split"]
    for i in range(11):
        voxels = rng.integers(0, 255, (SIDE,) * 3, dtype=np.uint8)
        write_nifti(root / "volumes" / f"c{i}.nii.gz", voxels, AFFINE)
        points = dict(zip(LABELS, rng.uniform(-8, 8, (3, 3)), strict=True))
        write_landmarks(root / "landmarks" / f"c{i}.mrk.json", points)
        for name in ("ann", "bob"):
            moved = {label: p + rng.normal(size=3) for label, p in points.items()}
            write_landmarks(root / "landmarks" / f"c{i}.{name}.mrk.json", moved)
        site = "b" if i > 8 else "a"
        rows.append(f"c{i},s{min(i, 7) if site == 'a' else i},{site},{20 + i},")
    (root / "cases.csv").write_text("\n".join(rows) + "\n")


CHANGES = {
    "crossval.folds": 2,
    "crossval.external_site": "b",
    "grid.side": 8,
    "model.widths": (2,),
    "augment.on": False,
    "train.batch": 4,
    "train.steps": 4,
    "report.on": False,
    "log.every": 2,
    "log.save_every": 2,
    "evaluation.ela_radius_mm": 20.0,
    "evaluation.region_share": 0.5,  # which few children can tell
}


def make_config(root, **changes):
    """configs/emd.py for the cohort in `root`, with other values as {"train.steps": 2}."""
    config = emd.get_config()
    config.update_from_flattened_dict({"data.root": str(root)} | CHANGES | changes)
    return config


def make_flags(root, **changes):
    """What a user would type for `make_config`."""
    values = {"data.root": root} | CHANGES | changes
    return [f"--config={ROOT}/configs/emd.py", *(f"--config.{k}={v}" for k, v in values.items())]


def read_numbers(workdir):
    """results.json without how long it took and by which commit, which a second run may change."""
    results = read_results(workdir)
    for one in (results, *results.get("folds", ())):
        assert one.pop("seconds") > 0 and one.pop("program")
    return results


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def change_errors(folder, change_mm):
    """Rewrite a run's errors as change_mm(case) would have them."""
    rows = read_rows(folder / "results.csv")
    for row in rows:
        row["error_mm"] = f"{float(row['error_mm']) + change_mm(row['case']):.4f}"
    write_rows(folder / "results.csv", rows)
    sign(folder)


def sign(folder):
    """Have results.json know the tables beside it as they are now."""
    results = read_json(folder / "results.json")
    del results["tables"]
    save_results(folder, results)


def write_rows(path, rows):
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def change_config(folder, **changes):
    config = read_json(folder / "config.json")
    for key, value in changes.items():
        section, name = key.split("__")
        config[section][name] = value
    write_json(folder / "config.json", config)
