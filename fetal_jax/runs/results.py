"""What a finished run holds: results.json and the files beside it, written and read.

results.json of a cross-validation has the test cases of all folds as `pooled` and, where cases are
held out of every fold, what the folds' models say of those as `external`, their mean as `ensemble`
in that.
"""

import hashlib
import os
import platform
import subprocess
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from fetal_jax.data.folds import EXTERNAL
from fetal_jax.errors import InputError
from fetal_jax.runs.folder import read_json, write_json
from fetal_jax.runs.found_files import tidy_table, write_landmark_files
from fetal_jax.runs.measurement_table import write_tested_measurements
from fetal_jax.runs.point_table import PointRows, read_point_rows, write_points
from fetal_jax.runs.predictions import join_predictions, write_predictions
from fetal_jax.runs.region import format_region
from fetal_jax.runs.summary import ENSEMBLE, Part

TEST = "test"
TABLES = ("results.csv", "external.csv", "measurements.csv")
DIGESTS = "tables"
PACKAGE = Path(__file__).parents[1]


class PartResults(NamedTuple):
    """numbers: of `summary.summarise_parts`; points: the rows that they are of."""

    numbers: dict
    points: PointRows


def write_results(
    workdir: Path,
    results: dict,
    labels: Sequence[str],
    parts: Sequence[Part],
    *,
    min_visible: float = 0.0,
) -> None:
    """predictions/, the tables and, last, results.json, whose presence says that all is there.

    A landmark file that somebody changed stays, and that is printed.
    """
    found = workdir / "predictions"
    for part in parts:
        names = [case.name for case in part.cases.cases]
        kept = write_landmark_files(found, names, labels, part.predictions, min_visible=min_visible)
        for path in kept:
            print(f"note: {path} is not as it was written, and stays as it is")
    tidy_table(found)
    write_points(workdir / "results.csv", labels, parts)
    write_tested_measurements(workdir / "measurements.csv", parts)
    joined = join_predictions([part.predictions for part in parts])
    write_predictions(workdir / "predictions.npz", joined)
    save_results(workdir, results)


def save_results(workdir: Path, results: dict) -> None:
    """Write results.json, with digests of the tables that lie beside it by now."""
    tables = {name: _digest(workdir / name) for name in TABLES if (workdir / name).exists()}
    write_json(workdir / "results.json", results | {DIGESTS: tables})


def read_results(workdir: Path) -> dict:
    """results.json.

    Raises:
      InputError: there is none, or it or a table beside it is not as it was written.
    """
    path = workdir / "results.json"
    results = read_json(path)
    try:
        tables = dict(results.pop(DIGESTS, {}))  # an older version had none
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: expected the results of a run, got {error}") from None
    for name, digest in tables.items():
        came = "other bytes" if (workdir / name).is_file() else "no such file"
        if came != "other bytes" or _digest(workdir / name) != digest:
            raise InputError(
                f"{workdir / name}: expected the table that the run wrote, got {came}; delete "
                f"{path}, and the command that made it makes both anew"
            )
    return results


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_parts(workdir: Path, results: dict) -> dict[str, PartResults]:
    """TEST, and of a cross-validation with cases outside of it EXTERNAL and ENSEMBLE.

    Args:
      results: of `read_results`.

    Raises:
      InputError: a table is missing or none.
    """
    rows = read_point_rows(workdir / "results.csv")
    parts = {TEST: PartResults(results.get("pooled", results), rows)}
    if EXTERNAL in results:
        rows = read_point_rows(workdir / "external.csv")
        averaged = rows.fold == ENSEMBLE
        outside = results[EXTERNAL]
        parts[EXTERNAL] = PartResults(outside, rows.select(~averaged))
        parts[ENSEMBLE] = PartResults(outside[ENSEMBLE], rows.select(averaged))
    return parts


def describe_program() -> dict[str, str | None]:
    """Which program made a result.

    Returns:
      version, of this package; commit, of the git checkout that the package lies in, with
      "+changes" where its files differ from it, and None elsewhere; jax, jaxlib, python.
    """
    return {
        "version": _find_version(),
        "commit": _find_commit(),
        "jax": metadata.version("jax"),
        "jaxlib": metadata.version("jaxlib"),
        "python": platform.python_version(),
    }


def _find_version() -> str | None:
    """The checkout's, for another version may be installed beside it; else the installed one's."""
    path = PACKAGE.parent / "pyproject.toml"
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        if project["name"] == PACKAGE.name:
            return project["version"]
    except (OSError, ValueError, KeyError):  # ValueError: no TOML, or no UTF-8
        pass
    try:
        return metadata.version(PACKAGE.name)
    except metadata.PackageNotFoundError:
        return None


def _find_commit() -> str | None:
    # a package in the virtual environment of another project lies in its checkout, and is not of it
    if not _ask_git("ls-files", "--", "__init__.py"):
        return None
    commit = _ask_git("rev-parse", "HEAD")
    changes = _ask_git("status", "--porcelain", "--untracked-files=no", "--", ".")
    if commit is None or changes is None:
        return None
    return f"{commit}+changes" if changes else commit


def _ask_git(*arguments: str) -> str | None:
    """What git says in the package's folder; None where it fails or is not installed."""
    # within a hook git's variables name the repository that the hook belongs to
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        answer = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=PACKAGE,
            env=environment,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return answer.stdout.strip()


def format_results(results: dict) -> str:
    """The result in a few lines, for a person."""
    if not results["landmarks"]:
        return f"{results['cases']} test cases, none with a visible landmark: nothing measured"
    rates = ", ".join(
        f"{100 * share:.0f} % within {float(r):g} mm"
        for r, share in results["success_rate"].items()
    )
    interval = results["d_mean_ci_mm"]
    between = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    per = {k: v["d_mean_mm"] for k, v in results["per_landmark"].items() if v["n"]}
    best, worst = min(per, key=per.get), max(per, key=per.get)
    lines = [
        f"{results['cases']} test cases, {results['landmarks']} visible landmarks",
        f"  d-mean {results['d_mean_mm']:.2f} mm{between}, median {results['d_median_mm']:.2f} mm",
        f"  {rates}",
        f"  best {best} {per[best]:.2f} mm, worst {worst} {per[worst]:.2f} mm",
        f"  a guess that ignores the image: {results['guess_d_mean_mm']:.2f} mm",
    ]
    if annotators := results["annotators"]:
        lines.append(f"  two annotators are {annotators['apart_mm']:.2f} mm apart")
    if region := results.get("region"):
        lines.append(f"  {format_region(region)}")
    for row in results.get("stages", ()):
        share = f", {100 * row['agreeing']:.0f} % agree with the frame" if "agreeing" in row else ""
        lines.append(f"  {row['stage']}: {row['d_mean_mm']:.2f} mm{share}")
    if seen := results.get("visibility"):
        alone = f"; by its share alone {seen['auc_base']:.2f}" if "auc_base" in seen else ""
        lines.append(f"  whether a landmark can be seen: AUC {seen['auc']:.2f}{alone}")
    if truth := results["truth"]:
        lines.append(
            f"  from the true points: {truth['d_mean_mm']:.2f} mm, and the annotations themselves "
            f"{truth['annotation_d_mean_mm']:.2f} mm"
        )
    return "\n".join(lines)
