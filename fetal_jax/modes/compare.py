"""`--mode=compare`: finished runs side by side, as the study's table and its charts.

Takes folders of runs and of cross-validations. Writes report/index.html, table.md and table.csv,
comparison.json with every p, and the charts. What is not finished is in the table, with what is
missing.
"""

from collections.abc import Sequence
from pathlib import Path

from fetal_jax.detectors.from_config import find_title
from fetal_jax.errors import InputError
from fetal_jax.report import comparison
from fetal_jax.report.compared_runs import compare_runs, read_run
from fetal_jax.report.seeds import pool_seeds


def run_compare(folders: Sequence[str], output: Path) -> None:
    """Compare the runs in `folders`; write the table and the charts into `output`.

    Raises:
      InputError: no folder, or one that is no run's.
    """
    if not folders:
        raise InputError("--runs: expected folders of runs, comma-separated, got none")
    runs = [read_run(Path(folder), find_title) for folder in dict.fromkeys(folders)]
    runs = pool_seeds(runs)
    table = compare_runs(runs)
    comparison.write_comparison(output, runs, table)
    print(comparison.format_table(table))
    for run in runs:
        if run.missing:
            print(f"note: {run.folder} is not finished: {run.missing}")
    print(f"open {output}/report/index.html; the table alone is {output}/table.md")
