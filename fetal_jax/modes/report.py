"""`--mode=report`: the report of a finished run or cross-validation, made again from its folder."""

from pathlib import Path

from fetal_jax.errors import InputError
from fetal_jax.modes import predict
from fetal_jax.modes import train as experiment
from fetal_jax.runs import config_table as config_values
from fetal_jax.runs import folder as run_folder
from fetal_jax.runs import predictions as evaluate


def run_report(workdir: Path) -> None:
    """Write WORKDIR/report anew; where the data set is gone, without its pictures of cases.

    Raises:
      InputError: the run is not finished.
    """
    if not (workdir / "results.json").exists():
        raise InputError(f"{workdir}: expected a finished run, with results.json, got none")
    config, parts, left_out, labels = run_folder.read_config(workdir), [], [], []
    config_values.check_values(config)
    config.report.on = config.report.surfaces = True  # whoever asks for a report waits for it
    try:
        for folder in predict.find_runs(workdir):
            record = run_folder.read_data_record(folder)
            tested = experiment.open_tested(config, folder, record)
            measured = evaluate.read_measured(folder / "predictions.npz")
            parts.append((folder, tested, measured))
            labels = record.labels
    except InputError as error:
        parts = []
        left_out.append(f"Pictures of cases: {error.problems[0]}.")
        print(f"note: without pictures of cases: {error.problems[0]}")
    experiment.report_run(config, workdir, labels, parts, left_out)
    print(f"open {workdir}/report/index.html")
