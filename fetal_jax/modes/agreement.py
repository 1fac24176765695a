"""`--mode=agreement`: how far observers agree, and whether the program is as near to them.

Reads the single annotators' files of a data set, landmarks/CASE.ANNOTATOR.mrk.json, and repeated
readings, CASE.ANNOTATOR-2.mrk.json; needs no volumes. Writes report/index.html, agreement.json,
distances.csv, measurements.csv and the charts.
"""

from pathlib import Path

from ml_collections import ConfigDict

from fetal_jax.data.from_config import choose_cache, open_dataset
from fetal_jax.data.observers import read_observers
from fetal_jax.errors import InputError
from fetal_jax.report.agreement import describe_agreement, write_report
from fetal_jax.runs import agreement, finished, folder, observer
from fetal_jax.runs.config_table import check_config


def run_agreement(
    config: ConfigDict | None, workdir: Path | None, files: Path | None, output: Path
) -> None:
    """Compare the observers of a data set; write what came of it into `output`.

    Args:
      config: whose data set; None: the run's.
      workdir: a run whose program is one more observer; None: none.
      files: what it found, as landmark files; None: in its own test cases.
      output: a folder.

    Raises:
      InputError: no data set, no case with two readings, or nothing that the program may stand for.
    """
    if config is None and workdir is None:
        raise InputError(
            "--mode=agreement: expected --config, whose data set to read, or --workdir, a finished "
            "run, got neither"
        )
    config = finished.open_config(workdir) if config is None else check_config(config)
    dataset = open_dataset(config, need_volumes=False)
    observed = read_observers(dataset, coordinate_system=config.data.coordinate_system or None)
    found = None
    if workdir is not None or files is not None:
        found = observer.read_found(
            observed.cases,
            observed.labels,
            workdir=workdir,
            files=files,
            cache=choose_cache(config),
        )
    measured = agreement.measure_readings(observed, found)
    numbers = agreement.summarise_agreement(observed, found, measured)
    agreement.write_distances(output / agreement.DISTANCES_CSV, observed, found)
    agreement.write_readings(output / agreement.MEASUREMENTS_CSV, observed, measured)
    folder.write_json(output / agreement.AGREEMENT_JSON, numbers)
    write_report(output, dataset, numbers, measured)
    for sentence in describe_agreement(numbers):
        print(sentence)
    print(f"open {output}/report/index.html")
