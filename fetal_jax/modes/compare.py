"""`--mode=compare`: finished runs side by side, as the study's table and its charts.

Takes folders of runs and of cross-validations. Writes report/index.html, table.md and table.csv,
comparison.json with every p, and the charts. What is not finished is in the table, with what is
missing.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fetal_jax import metrics, statistics
from fetal_jax.errors import InputError
from fetal_jax.report import comparison
from fetal_jax.runs import folder as run_folder
from fetal_jax.runs.point_table import read_points

NAMES = {
    "ce": "Softmax CE",
    "distance": "Distance penalty",
    "sse": "Sum of squared errors",
    "emd": "EMD-regularised",
}
RPN_NAME = "RPN-style detector (our reconstruction)"
# Keys of the config that the first columns show, or that say nothing about what was done.
SHOWN_KEYS = (
    *("loss.", "model.name", "rpn.", "data.labels", "crossval."),
    *("log.", "report.", "devices.", "model.remat"),
)


@dataclass(frozen=True)
class Points:
    """Errors of visible landmarks, (case, label) -> mm, the mean over models, and subjects."""

    errors_mm: dict[tuple[str, str], float]
    subjects: dict[str, str]

    def arrange(self, keys) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """(errors [N, L] mm, which are among `keys` [N, L], subjects N)."""
        cases = sorted({case for case, _ in keys})
        labels = sorted({label for _, label in keys})
        errors = np.zeros((len(cases), len(labels)))
        counted = np.zeros(errors.shape, bool)
        rows, columns = ({name: i for i, name in enumerate(names)} for names in (cases, labels))
        for case, label in keys:
            place = rows[case], columns[label]
            errors[place], counted[place] = self.errors_mm[case, label], True
        return errors, counted, [self.subjects[case] for case in cases]


@dataclass(frozen=True)
class Run:
    """One row: results is None while the run is not finished."""

    folder: Path
    config: dict
    missing: str = ""
    results: dict | None = None
    points: dict[str, Points] = field(default_factory=dict)  # of comparison.PARTS

    @property
    def name(self) -> str:
        if self.config["model"]["name"] == "rpn3d":
            return RPN_NAME
        return NAMES[self.config["loss"]["name"]]

    @property
    def omega(self) -> float | None:
        loss = self.config["loss"]
        used = self.config["model"]["name"] != "rpn3d" and loss["name"] in ("emd", "distance")
        return loss["omega"] if used else None

    @property
    def title(self) -> str:
        return self.name if self.omega is None else f"{self.name}, ω {self.omega:g}"

    def part(self, part: str) -> dict | None:
        """The numbers of a part, as `evaluate.summarise` gives them."""
        if self.results is None:
            return None
        if "pooled" in self.results:
            return (
                self.results["pooled" if part == "test" else "external"]
                if (part == "test" or "external" in self.results)
                else None
            )
        return self.results if part == "test" else None


def run_compare(folders: list[str], output: Path) -> None:
    """Compare the runs in `folders`; write the table and the charts into `output`."""
    if not folders:
        raise InputError("--runs: expected folders of runs, comma-separated, got none")
    runs = [read_run(Path(folder)) for folder in dict.fromkeys(folders)]
    table = compare_runs(runs)
    comparison.write_comparison(output, runs, table)
    print(comparison.format_table(table))
    for run in runs:
        if run.missing:
            print(f"note: {run.folder} is not finished: {run.missing}")
    print(f"open {output}/report/index.html; the table alone is {output}/table.md")


def read_run(folder: Path) -> Run:
    """A run or a cross-validation, finished or not.

    Raises:
      InputError: the folder is neither.
    """
    if not (folder / "config.json").exists():
        raise InputError(f"{folder}: expected the folder of a run, with config.json, got none")
    config = run_folder.read_json(folder / "config.json")
    if not (folder / "results.json").exists():
        return Run(folder, config, missing=_say_missing(folder, config))
    results = run_folder.read_json(folder / "results.json")
    points = {"test": _read_points(folder / "results.csv")}
    if "external" in results:
        points["external"] = _read_points(folder / "external.csv")
    return Run(folder, config, "", results, points)


def _say_missing(folder: Path, config: dict) -> str:
    if not (folder / run_folder.FOLDS_CSV).exists():
        return "its results.json is missing"
    names = [f"fold{fold + 1}" for fold in range(config["crossval"]["folds"])]
    left = [name for name in names if not (folder / name / "results.json").exists()]
    return f"{', '.join(left)} of {len(names)} missing" if left else "its folds are not pooled"


def _read_points(path: Path) -> Points:
    rows = read_points(path)
    rows = rows.select(rows.visible & (rows.fold != "ensemble"))
    found: dict[tuple[str, str], list[float]] = {}
    for key, error_mm in zip(zip(rows.case, rows.label, strict=True), rows.error_mm, strict=True):
        found.setdefault(key, []).append(error_mm)
    errors = {key: float(np.mean(values)) for key, values in found.items()}
    return Points(errors, dict(zip(rows.case, rows.subject, strict=True)))


def compare_runs(runs: list[Run]) -> dict:
    """The rows of the table.

    Returns:
      reference: title of the row that the others are tested against; labels: landmarks that all
      rows have, where some have more, else None; rows: for each run what the table shows.
    """
    finished = [run for run in runs if run.results is not None]
    reference = next(
        (r for r in finished if r.name == NAMES["emd"] and r.omega == 0.5),
        finished[0] if finished else None,
    )
    labels = _find_common_labels(finished)
    rows = [
        {
            "folder": str(run.folder),
            "setting": run.name,
            "omega": run.omega,
            "differs": _find_differences(run, reference or run),
            "missing": run.missing,
            "test": _describe(run.part("test")),
            "external": _describe(run.part("external")),
        }
        for run in runs
    ]
    for part in comparison.PARTS:
        _add_tests(rows, runs, reference, part)
        if labels:
            for row, run in zip(rows, runs, strict=True):
                if row[part]:
                    row[part]["common"] = _describe_common(run.points[part], labels)
    return {"reference": reference and reference.title, "labels": labels, "rows": rows}


def _find_common_labels(runs: list[Run]) -> list[str] | None:
    """Landmarks that every run has, if some run has others too."""
    each = [list(run.part("test")["per_landmark"]) for run in runs]
    common = [label for label in (each[0] if each else []) if all(label in one for one in each)]
    return common if any(len(one) > len(common) for one in each) else None


def _find_differences(run: Run, reference: Run) -> dict:
    """Config keys, beside those that the first columns show, that differ from the reference's."""
    here, there = run_folder.flatten(run.config), run_folder.flatten(reference.config)
    return {
        key: here.get(key)
        for key in here | there
        if here.get(key) != there.get(key) and not key.startswith(SHOWN_KEYS)
    } | {
        key: here[key]
        for key in ("loss.lambda1", "loss.lambda2")
        if run.name == reference.name == NAMES["emd"] and here[key] != there[key]
    }


def _describe(found: dict | None) -> dict | None:
    if found is None or found["d_mean_mm"] is None:
        return None
    ensemble = found.get("ensemble")
    return {
        "cases": found["cases"],
        "subjects": found["subjects"],
        "points": found["landmarks"],
        "d_mean_mm": found["d_mean_mm"],
        "ci_mm": found["d_mean_ci_mm"],
        "sd_mm": found["d_sd_mm"],
        "median_mm": found["d_median_mm"],
        "success_rate": found["success_rate"],
        "guess_mm": found["guess_d_mean_mm"],
        "annotators_apart_mm": found["annotators"] and found["annotators"]["apart_mm"],
        "ensemble": ensemble
        and {"d_mean_mm": ensemble["d_mean_mm"], "ci_mm": ensemble["d_mean_ci_mm"]},
    }


def _describe_common(points: Points, labels: list[str]) -> dict:
    errors, counted, subjects = points.arrange([k for k in points.errors_mm if k[1] in labels])
    return {
        "points": int(counted.sum()),
        "d_mean_mm": float(errors[counted].mean()),
        "ci_mm": metrics.bootstrap_interval(errors, counted, subjects),
    }


def _add_tests(rows, runs, reference, part) -> None:
    """p of each finished run against the reference, on the points that both have."""
    tested = []
    for row, run in zip(rows, runs, strict=True):
        if run is reference or not row[part] or part not in reference.points:
            continue
        a, b = run.points[part], reference.points[part]
        keys = a.errors_mm.keys() & b.errors_mm.keys()
        if not keys:
            continue
        _, mine = statistics.subject_means(*a.arrange(keys))
        _, theirs = statistics.subject_means(*b.arrange(keys))
        row[part]["p_subjects"] = len(mine)
        row[part]["p"] = statistics.paired_permutation(mine, theirs)
        tested.append(row[part])
    corrected = statistics.correct_holm([entry["p"] for entry in tested])
    for entry, p in zip(tested, corrected, strict=True):
        entry["p_holm"] = p
