"""`--mode=sweep`: a run for each combination of values, one after another, then one table."""

from pathlib import Path

from ml_collections import ConfigDict

from fetal_jax.errors import InputError
from fetal_jax.modes.compare import run_compare
from fetal_jax.modes.crossval import run_crossval
from fetal_jax.modes.train import run_train
from fetal_jax.runs.variations import list_combinations
from fetal_jax.training.from_config import check_devices
from fetal_jax.training.processes import from_first

EACH = {"train": run_train, "crossval": run_crossval}


def run_sweep(config: ConfigDict, workdir: Path, vary: list[str], each: str) -> None:
    """Run every combination that is not finished, in WORKDIR/KEY=VALUE,...; compare them all.

    All combinations are checked before the first one runs.
    """
    if not vary:
        raise InputError("--mode=sweep: expected --vary, as --vary=loss.lambda2=0.1,0.2, got none")
    chosen = {workdir / name: one for name, one in list_combinations(config, vary).items()}
    for changed in chosen.values():
        check_devices(changed)
    for folder, changed in chosen.items():
        print(f"== {folder}")
        EACH[each](changed, folder)
    print(f"== all {len(chosen)} runs")
    from_first(lambda: run_compare([str(folder) for folder in chosen], workdir / "comparison"))
