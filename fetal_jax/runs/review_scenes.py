"""OUTPUT/slicer/CASE.mrml: a scan and its landmark file in 3D Slicer, which saves it in place."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from fetal_jax.io.files import write_atomically
from fetal_jax.io.slicer_scene import format_link_scene

FOLDER = "slicer"


def write_scenes(
    output: Path,
    files: Mapping[str, tuple[Path, Path]],
    wanted: Collection[str],
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Write the scenes of the cases that are wanted, and remove those of the others.

    Args:
      files: case -> its volume and its landmark file.
      overwrite: also scenes that somebody changed, as Slicer does where it saves a scene, too.

    Returns:
      The scenes that were left as they are, for somebody changed them.
    """
    kept = []
    for case, (volume, points) in files.items():
        path = output / FOLDER / f"{case}.mrml"
        scene = format_link_scene(case, _relate(volume, path.parent), _relate(points, path.parent))
        there = path.read_bytes() if path.is_file() else None
        if there not in (None, scene) and not overwrite:
            kept.append(path)
        elif case in wanted:
            write_atomically(path, scene)
        elif there is not None:
            path.unlink()
    return kept


def _relate(path: Path, folder: Path) -> str:
    """A file's path from a folder, with / as Slicer has it; the whole path on another drive.

    Links on the way are followed, for .. leads out of what they point to; the file's own is not,
    for its name says what it is.
    """
    there = path.parent.resolve() / path.name
    try:
        return Path(os.path.relpath(there, folder.resolve())).as_posix()
    except ValueError:
        return there.as_posix()
