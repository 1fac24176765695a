"""Cases on their grids: what training, evaluation and the report look at."""

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fetal_jax import geometry, metrics
from fetal_jax.data import grid_cache, memory
from fetal_jax.data.case_table import Case
from fetal_jax.data.dataset import Dataset, read_case_points, read_readings, read_true_points
from fetal_jax.data.lazy_volumes import (
    SAMPLES,
    Volumes,
    decode,
    decoded_dtype,
    encode,
    join_volumes,
    thin_out,
    write_scratch,
)
from fetal_jax.data.placement import Placement, Source
from fetal_jax.data.preprocess import Preprocessing, find_levels, prepare_volume, sample_volume
from fetal_jax.errors import InputError
from fetal_jax.geometry import Grid
from fetal_jax.io.mapped_arrays import is_mapped
from fetal_jax.io.volumes import read_header, read_volume

# Annotators click on a border voxel's rim: so far outside, in file voxels, a point is still inside.
BORDER_VOX = 2.0
KEPT_BYTES = 2**30  # of files whose voxels are sampled again at each step


@dataclass(frozen=True)
class PreparedCases:
    """Cases on the grid.

    volumes: [N, D, H, W] in [0, 1]; mapped from files, where they are kept.
    points_mm: [N, L, 3] float64 RAS+ mm, NaN where absent.
    points_vox: [N, L, 3] float32 grid voxels, 0 where absent.
    present, visible: [N, L] bool.
    judged: [N, L] bool, whether it is known if the landmark can be seen.
    spread_mm: [N, L] how far annotators are apart, NaN where fewer than two set the point.
    true_mm: [N, L, 3] float64 RAS+ mm, where the points of a phantom really are; else NaN.
    """

    cases: tuple[Case, ...]
    grids: tuple[Grid, ...]
    volumes: np.ndarray | Volumes
    points_mm: np.ndarray
    points_vox: np.ndarray
    present: np.ndarray
    visible: np.ndarray
    judged: np.ndarray
    spread_mm: np.ndarray
    true_mm: np.ndarray

    def __len__(self) -> int:
        return len(self.cases)

    @property
    def subjects(self) -> list[str]:
        return [case.subject for case in self.cases]

    def select(self, indices: Sequence[int] | np.ndarray) -> "PreparedCases":
        """The cases at `indices`, in that order."""
        indices = np.asarray(indices, int)
        return PreparedCases(
            **{
                field.name: value[indices]
                if isinstance(value := getattr(self, field.name), np.ndarray | Volumes)
                else tuple(value[i] for i in indices)
                for field in fields(self)
            }
        )

    def join(self, *others: "PreparedCases") -> "PreparedCases":
        """These cases, then those of the others."""

        def join_field(name: str):
            parts = [getattr(one, name) for one in (self, *others)]
            if name == "volumes":
                return join_volumes(parts)
            return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else sum(parts, ())

        return PreparedCases(**{field.name: join_field(field.name) for field in fields(self)})

    def to_world(self, points_vox: np.ndarray) -> np.ndarray:
        """[N, L, 3] voxels of each case's own grid to RAS+ mm."""
        return np.stack([g.to_world(p) for g, p in zip(self.grids, points_vox, strict=True)])

    def find_outside(self, indices: Iterable[int]) -> list[str]:
        """Names of those of the cases that have a landmark outside their grid."""
        return [
            self.cases[i].name
            for i in indices
            if (self.present[i] & ~self.grids[i].contains(self.points_mm[i])).any()
        ]

    def share_visible(self) -> list[float] | None:
        """[L], of the cases that say it, in how many each landmark can be seen.

        None where no case says of any landmark that it cannot: there is nothing to learn.
        """
        if not (self.judged & ~self.visible).any():
            return None
        shares = (self.visible & self.judged).sum(axis=0) / np.maximum(self.judged.sum(axis=0), 1)
        return shares.tolist()

    def mean_positions(self) -> np.ndarray:
        """[L, 3], mm from the grid's first voxel: where each landmark is on average."""
        counted = self.present[..., None]
        sums = np.sum(np.where(counted, self.points_vox, 0.0), axis=0, dtype=np.float64)
        centre = (np.array(self.grids[0].shape) - 1) / 2
        means = np.where(counted.any(axis=0), sums / np.maximum(counted.sum(axis=0), 1), centre)
        return means * self.grids[0].spacing_mm


def prepare_dataset(
    dataset: Dataset,
    placement: Placement,
    preprocessing: Preprocessing,
    *,
    held_out: Collection[int] = (),
    coordinate_system: str | None = None,
    cache: Path | None = None,
    dtype: str = "float16",
    begin: int = 0,
    progress: Callable[[int], None] | None = None,
) -> PreparedCases:
    """Read every case of a data set and put it on its grid, several at a time.

    A grid that is in the cache is not looked at again: it was checked before it was kept.

    Args:
      held_out: indices of the cases that only test. The grid was not made for them: one of their
        landmarks may lie outside of it. It cannot be found there, and its error counts in
        full: to leave it out would flatter. `PreparedCases.find_outside` names such cases.
      placement: says which grid; asked without random numbers.
      preprocessing: its percentiles, and whether a missing affine is trusted.
      cache: a folder to keep the grids in, see `grid_cache`; None for none: they stay in memory.
      dtype: of the kept grids, one of `lazy_volumes.DTYPES`.
      begin: the case to begin with: several processes that share the cache share the work.
      progress: called with the number of cases that are done.

    Raises:
      InputError: one line for each case that cannot be read, has a landmark outside its volume, or
        has one outside the grid and is not held out.
    """
    held_out, count = set(held_out), len(dataset.cases)

    def prepare(index):
        try:
            return index, _prepare_case(
                dataset.cases[index],
                dataset.labels,
                placement,
                preprocessing,
                coordinate_system,
                cache,
                dtype,
                anywhere=index in held_out,
            )
        except InputError as error:
            return index, error

    found = [None] * count
    with ThreadPoolExecutor(memory.count_cores()) as pool:
        order = [(begin + i) % count for i in range(count)]
        for done, (index, one) in enumerate(pool.map(prepare, order), start=1):
            found[index] = one
            if progress is not None:
                progress(done)
    problems = [line for f in found if isinstance(f, InputError) for line in f.problems]
    if problems:
        raise InputError(*problems)
    volumes, thin, grids, points_mm, visible, judged, spread_mm, true_mm = zip(*found, strict=True)
    points_mm = np.stack(points_mm)
    present = np.isfinite(points_mm).all(axis=-1)
    points_vox = np.stack([g.to_voxels(p) for g, p in zip(grids, points_mm, strict=True)])
    return PreparedCases(
        dataset.cases,
        tuple(grids),
        Volumes(volumes, grids[0].shape, decoded_dtype(dtype), np.stack(thin)),
        points_mm,
        np.where(present[..., None], points_vox, 0.0).astype(np.float32),
        present,
        np.stack(visible),
        np.stack(judged),
        np.stack(spread_mm),
        np.stack(true_mm),
    )


def _prepare_case(
    case, labels, placement, preprocessing, coordinate_system, cache, dtype, *, anywhere
):
    trust = dict(trust_missing_affine=preprocessing.trust_missing_affine)
    shape, affine = read_header(case.volume_path, **trust)
    points, visible, judged = read_case_points(case, labels, coordinate_system=coordinate_system)
    readings = read_readings(case, labels, coordinate_system=coordinate_system)
    grid = placement.place(Source(shape, affine, points), None)

    def make():
        with memory.reserve(shape):
            volume = read_volume(case.volume_path, **trust)
            voxels = encode(prepare_volume(volume, grid, preprocessing.percentiles), dtype)
        check_contrast(case.volume_path, voxels, grid)
        return {"thin": thin_out(voxels), "voxels": voxels}

    made_by = (preprocessing.percentiles, grid.shape, grid.affine.tolist(), dtype, SAMPLES)
    kept = grid_cache.keep(cache, case.volume_path, made_by, make, small=["thin"])
    _check_inside(case, labels, points, shape, affine, None if anywhere else grid)
    spread_mm, true_mm = metrics.measure_spread(readings), read_true_points(case, labels)
    fetch, thin = partial(_fetch_grid, kept), decode(kept.small["thin"])
    return fetch, thin, grid, points, visible, judged, spread_mm, true_mm


def _fetch_grid(kept: grid_cache.Kept) -> np.ndarray:
    return decode(kept.open()["voxels"])


def check_contrast(path: Path, voxels: np.ndarray, grid: Grid) -> None:
    """Raise an InputError where nothing is left of a volume on a grid, as of a header in metres."""
    if voxels.size and voxels.min() < voxels.max():
        return
    low, high = geometry.world_bounds(*read_header(path, trust_missing_affine=True))
    size = " × ".join(f"{mm:.3g}" for mm in high - low)
    raise InputError(
        f"{path}: expected voxels that differ on the grid, at {grid.spacing_mm:g} mm, got one "
        f"value: its header says {size} mm"
    )


def _check_inside(case, labels, points, shape, affine, grid: Grid | None) -> None:
    """Raise an InputError for a landmark outside its volume, or outside the grid that it names."""
    index = geometry.apply_affine(np.linalg.inv(affine), points)
    reach = np.array(shape) - 1 + BORDER_VOX
    outside = ((index < -BORDER_VOX) | (index > reach)).any(axis=-1)  # NaN compares false
    if outside.any():
        bounds = geometry.world_bounds(shape, affine)
        raise InputError(_describe_outside(case, labels, points, outside, *bounds, "volume"))
    if grid is None:
        return
    margin_mm = BORDER_VOX * geometry.voxel_sizes(affine).max()  # as on the volume's rim
    outside = np.isfinite(points).all(axis=-1) & ~grid.contains(points, margin_mm=margin_mm)
    if outside.any():
        bounds = geometry.world_bounds(grid.shape, grid.affine)
        raise InputError(_describe_outside(case, labels, points, outside, *bounds, "grid"))


def _describe_outside(case, labels, points, outside, low, high, what) -> str:
    def mm(values):
        return "(" + ", ".join(f"{v:.1f}" for v in values) + ")"

    first = int(np.argmax(outside))
    source = case.landmarks_path or case.reading_paths[0]
    more = f" and {int(outside.sum()) - 1} more" if outside.sum() > 1 else ""
    return (
        f"{source}: expected landmarks inside the {what} of {case.volume_path.name}, "
        f"RAS {mm(low)} to {mm(high)} mm, got {labels[first]} at {mm(points[first])}{more}"
    )


class FileVoxels(NamedTuple):
    """What a grid is sampled from: a file's voxels, their affine, what becomes 0 and 1."""

    voxels: np.ndarray
    affine: np.ndarray
    levels: tuple[float, float]

    def sample(self, grid: Grid) -> np.ndarray:
        """[D, H, W] float16 in [0, 1], as networks are trained with."""
        return sample_volume(self.voxels, self.affine, self.levels, grid).astype(np.float16)


def read_voxels(path: Path, preprocessing: Preprocessing, cache: Path | None = None) -> FileVoxels:
    """A volume file, from the cache where it has been read before: it is then not unpacked again.

    Raises:
      InputError: it cannot be read, or has no contrast.
    """

    def make():
        volume = read_volume(path, trust_missing_affine=preprocessing.trust_missing_affine)
        levels = find_levels(volume, preprocessing.percentiles)
        return {"voxels": volume.voxels, "affine": volume.affine, "levels": np.array(levels)}

    made_by = ("file", preprocessing.percentiles, preprocessing.trust_missing_affine)
    kept = grid_cache.fetch(cache, path, made_by, make)
    low, high = map(float, kept["levels"])
    return FileVoxels(kept["voxels"], kept["affine"], (low, high))


def bind_files(
    prepared: PreparedCases, preprocessing: Preprocessing, cache: Path | None
) -> Callable[[int], FileVoxels]:
    """index of a case -> its file, of `read_voxels`: mapped each time it is asked for.

    Of those that are in no cache up to KEPT_BYTES stay in memory.
    """
    kept: dict[int, FileVoxels] = {}

    def open_file(index: int) -> FileVoxels:
        if index in kept:
            return kept[index]
        file = read_voxels(prepared.cases[index].volume_path, preprocessing, cache)
        room = KEPT_BYTES - sum(one.voxels.nbytes for one in kept.values())
        if not is_mapped(file.voxels) and file.voxels.nbytes <= room:
            kept[index] = file
        return file

    return open_file


def place_anew(
    prepared: PreparedCases,
    placement: Placement,
    preprocessing: Preprocessing,
    *,
    frames: Sequence[np.ndarray] | None = None,
    cache: Path | None = None,
) -> Callable[[int, np.random.Generator | None], tuple[np.ndarray, Grid]]:
    """(index of a case, random numbers) -> (its volume [D, H, W] float16, the grid it is on).

    For a placement that varies: the file's own voxels are sampled again at each call.

    Args:
      frames: [4, 4] of each case, of `placement.Source`.
      cache: of `read_voxels`.
    """
    open_file = bind_files(prepared, preprocessing, cache)

    def place(index: int, rng: np.random.Generator | None) -> tuple[np.ndarray, Grid]:
        file = open_file(index)
        frame = None if frames is None else frames[index]
        source = Source(file.voxels.shape, file.affine, prepared.points_mm[index], frame)
        grid = placement.place(source, rng)
        return file.sample(grid), grid

    return place


def place_cases(
    prepared: PreparedCases,
    place: Callable,
    seed: Sequence[int] | None = None,
    *,
    scratch: Path | None = None,
) -> PreparedCases:
    """The same cases on the grids that `place`, of `place_anew`, has for them.

    Args:
      seed: of the random numbers that each is placed by; None: without chance.
      scratch: of `lazy_volumes.write_scratch`, which keeps the volumes.
    """
    grids = []

    def place_one(index: int) -> tuple[np.ndarray, Grid]:
        rng = None if seed is None else np.random.default_rng([*seed, index])
        shape, _ = read_header(prepared.cases[index].volume_path, trust_missing_affine=True)
        with memory.reserve(shape):
            return place(index, rng)

    def keep_grid(found: tuple[np.ndarray, Grid]) -> np.ndarray:
        volume, grid = found
        grids.append(grid)
        return volume

    with ThreadPoolExecutor(memory.count_cores()) as pool:
        volumes = map(keep_grid, pool.map(place_one, range(len(prepared))))
        volumes = write_scratch(volumes, len(prepared), scratch)
    points = np.stack([g.to_voxels(p) for g, p in zip(grids, prepared.points_mm, strict=True)])
    return replace(
        prepared,
        grids=tuple(grids),
        volumes=volumes,
        points_vox=np.where(prepared.present[..., None], points, 0.0).astype(np.float32),
    )
