"""A corrector who looks at points in the order of review.csv, beside one who looks at random.

python -m study.correct RUN COHORT OUTPUT

RUN, a finished run, predicts its test scans in COHORT, as `--mode=predict` does. Then points are
replaced by the true ones of a phantom, else by the annotations, one after the other, and the mean
error over all visible points is drawn against the share touched: OUTPUT/correct.png, correct.csv.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np

from fetal_jax.data.dataset import read_case_points, read_dataset, read_true_points
from fetal_jax.io.markups import read_landmarks
from fetal_jax.io.tables import write_table
from fetal_jax.modes.predict import run_predict
from fetal_jax.runs import folder
from fetal_jax.runs.review_table import FILE, read_reviews

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

ORDERS = 1000  # at random
SHARES = np.linspace(0.0, 1.0, 101)


def read_errors(run: Path, cohort: Path, found: Path) -> np.ndarray:
    """mm, of each visible point of the test scans, in the order of review.csv."""
    record, dataset = folder.read_data_record(run), read_dataset(cohort)
    cases = {case.name: case for case in dataset.cases if case.name in record.splits["test"]}
    run_predict(run, [str(case.volume_path) for case in cases.values()], found, "mrk.json")
    errors = {}
    for name, case in cases.items():
        annotated, visible, _ = read_case_points(case, record.labels)
        true_mm = read_true_points(case, record.labels)
        truth = np.where(np.isfinite(true_mm), true_mm, annotated)
        points = read_landmarks(found / f"{name}.mrk.json")
        for label, point_mm, seen in zip(record.labels, truth, visible, strict=True):
            error = np.linalg.norm(points[label] - point_mm)
            if seen and np.isfinite(error):  # what was left undefined has no error to correct
                errors[name, label] = error
    order = [row[:2] for row in read_reviews(found / FILE)]
    return np.array([errors[point] for point in order if point in errors])


def correct(errors_mm: np.ndarray) -> np.ndarray:
    """Mean error at SHARES, once the first points [..., n] of so large a share are right."""
    left = np.cumsum(errors_mm[..., ::-1], axis=-1)[..., ::-1] / errors_mm.shape[-1]
    left = np.concatenate([left, np.zeros((*left.shape[:-1], 1))], axis=-1)
    return left[..., np.rint(SHARES * errors_mm.shape[-1]).astype(int)]


def draw(path: Path, curves: dict[str, np.ndarray], band: np.ndarray, n: int) -> None:
    figure, axes = pyplot.subplots(figsize=(5.6, 3.6), layout="constrained")
    percent = 100 * SHARES
    axes.fill_between(percent, *band, color="#999999", alpha=0.35, linewidth=0)
    styles = {
        "random": ("#666666", "-", "at random (mean, 95 %)"),
        "review.csv": ("#c25400", "-", "in the order of review.csv"),
        "best": ("#333333", ":", "largest error first"),
    }
    for name, curve in curves.items():
        color, line, label = styles[name]
        axes.plot(percent, curve, line, color=color, label=label)
    axes.legend(frameon=False)
    axes.set_xlabel(f"share of {n} points touched, %")
    axes.set_ylabel("mean error, mm")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, None)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("run", "cohort", "output"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args()
    errors_mm = read_errors(asked.run, asked.cohort, asked.output / "found")
    rng = np.random.default_rng(0)
    random = correct(rng.permuted(np.tile(errors_mm, (ORDERS, 1)), axis=1))
    band = np.quantile(random, [0.025, 0.975], axis=0)
    curves = {
        "random": random.mean(axis=0),
        "review.csv": correct(errors_mm),
        "best": correct(np.sort(errors_mm)[::-1]),
    }
    columns = ("share", *curves, "random_low", "random_high")
    rows = np.stack([SHARES, *curves.values(), *band], axis=1)
    write_table(asked.output / "correct.csv", columns, ([f"{v:.4f}" for v in row] for row in rows))
    draw(asked.output / "correct.png", curves, band, len(errors_mm))
    for percent in (0, 5, 10, 20, 50):
        at = {name: curve[percent] for name, curve in curves.items()}
        print(f"{percent:3d} % touched: " + ", ".join(f"{k} {v:.2f} mm" for k, v in at.items()))


if __name__ == "__main__":
    main()
