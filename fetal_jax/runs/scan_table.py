"""volumes.csv beside landmark files of new scans: which volume each was found in."""

from collections.abc import Mapping
from pathlib import Path

from fetal_jax.io.tables import read_own_table, write_table

FILE = "volumes.csv"
COLUMNS = ("case", "volume")


def write_scans(folder: Path, volumes: Mapping[str, Path]) -> None:
    """Write the volume of each case; those of other cases that are there already stay.

    Raises:
      InputError: a file of that name that is another table.
    """
    every = read_scans(folder) | {case: path.absolute() for case, path in volumes.items()}
    write_table(folder / FILE, COLUMNS, sorted(every.items()))


def read_scans(folder: Path) -> dict[str, Path]:
    """Case -> its volume; none where there is no such table.

    Raises:
      InputError: it is another table.
    """
    path = folder / FILE
    rows = read_own_table(path, COLUMNS)
    return {row["case"]: Path(row["volume"]) for _, row in rows}
