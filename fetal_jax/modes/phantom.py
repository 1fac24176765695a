"""`--mode=phantom`: the phantom cohort, written into a folder of one's choice."""

import time
from pathlib import Path

from ml_collections import ConfigDict

from fetal_jax.data.from_config import write_phantom
from fetal_jax.data.phantom_files import measure_floor
from fetal_jax.progress import format_seconds
from fetal_jax.runs.config_table import check_config


def run_phantom(config: ConfigDict, output: Path) -> None:
    """Write the phantom cohort of config.phantom into a folder, or finish it."""
    config = check_config(config)
    began = time.monotonic()
    write_phantom(config, output)
    size_mib = sum(path.stat().st_size for path in output.rglob("*") if path.is_file()) / 2**20
    print(
        f"{config.phantom.cases} cases in {output}, {size_mib:.0f} MiB, "
        f"{format_seconds(time.monotonic() - began)}; "
        f"look at them with --config.data.root={output} --mode=check"
    )
    for site, floor in measure_floor(output).items():
        print(
            f"{site}: annotated {floor.visible_mm:.2f} mm from the true points, "
            f"{floor.completed_mm:.2f} mm where they cannot be seen"
        )
