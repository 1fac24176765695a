"""A cohort that is larger than memory: what it adds to a training's own memory, and what it costs.

    python -m benchmarks.large_cohort --folder=FOLDER --cases=2000 --side=128

Volumes of smooth noise are written as files, resampled to the grid and trained on with a tiny
network: by a few cases and by all, each from nothing and once more with the grids that are kept,
which the system is asked to forget first. Memory is RssAnon of /proc/self/status: what is mapped
from files, which the system can take back, is not in it. FOLDER is deleted at the end. Linux only.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
FEW = 24
HELD_OUT = 4  # cases that validate, and as many that test
FILE_SIDE = 24  # of a volume file; small, so that the cohort is written in seconds
LABELS = ("L", "R", "nose")
EVERY_S = 0.25
SHOWN = 12  # of the memory over time


def write_cohort(root: Path, count: int, side: int) -> None:
    """A data set whose grids of 1 mm have `side` voxels."""
    from fetal_jax.io.markups import write_landmarks
    from fetal_jax.io.volumes import write_nifti

    spacing = side / FILE_SIDE
    affine = np.diag([spacing, spacing, spacing, 1.0])
    rows = ["case,subject,split"]
    for i in range(count):
        rng = np.random.default_rng(i)
        name = f"c{i:05d}"
        voxels = rng.integers(0, 255, (FILE_SIDE,) * 3, dtype=np.uint8)
        write_nifti(root / "volumes" / f"{name}.nii.gz", voxels, affine)
        points = dict(zip(LABELS, rng.uniform(0.3, 0.7, (3, 3)) * side, strict=True))
        write_landmarks(root / "landmarks" / f"{name}.mrk.json", points)
        split = ("validation", "test")[i % 2] if i < 2 * HELD_OUT else "train"
        rows.append(f"{name},s{i},{split}")
    (root / "cases.csv").write_text("\n".join(rows) + "\n")


def forget(folder: Path) -> None:
    """Ask the system to keep nothing of the files in its memory."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def run_measured(argv: list[str], path: Path) -> None:
    """The launcher in this process; when it had its first batch and its memory go into `path`."""
    began, seen, first = time.monotonic(), [], []

    def read_anonymous() -> float:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0]) / 2**20

    def watch() -> None:
        while True:
            seen.append((time.monotonic() - began, read_anonymous()))
            time.sleep(EVERY_S)

    threading.Thread(target=watch, daemon=True).start()
    from fetal_jax import cli
    from fetal_jax.data import loader

    load = loader.load_examples

    def load_timed(*args, **options):
        examples = load(*args, **options)
        first.append(time.monotonic() - began)
        return examples

    loader.load_examples = load_timed
    sys.argv = argv
    if status := cli.main(argv):
        sys.exit(status)
    path.write_text(json.dumps({"first_batch_s": first[0], "last_batch_s": first[-1], "gib": seen}))


def measure_start(root: Path, workdir: Path, asked: argparse.Namespace) -> dict:
    """One training in a process of its own."""
    changes = {
        "data.root": root,
        "data.grid_dtype": asked.dtype,
        "grid.side": asked.side,
        "grid.spacing_mm": 1.0,
        "model.widths": "(2,)",
        "augment.on": False,  # the faster the step, the more it would wait
        "train.steps": asked.steps,
        "log.every": 5,
        "log.save_every": max(1, asked.steps // 2),
        "report.on": False,
    }
    shutil.rmtree(workdir, ignore_errors=True)
    path = workdir.with_suffix(".json")
    command = [sys.executable, "-m", "benchmarks.large_cohort", f"--measured={path}", "--"]
    command += [f"--config={ROOT}/configs/emd.py", f"--workdir={workdir}"]
    command += [f"--config.{key}={value}" for key, value in changes.items()]
    environment = os.environ | {"XDG_CACHE_HOME": str(asked.folder / "cache")}
    subprocess.run(command, check=True, cwd=ROOT, env=environment)
    measured = json.loads(path.read_text())
    last = (workdir / "metrics.jsonl").read_text().splitlines()[-1]
    return measured | {"waiting": json.loads(last)["waiting_share"]}


def print_row(title: str, measured: dict) -> None:
    times, gib = np.array(measured["gib"]).T
    starting = times < measured["first_batch_s"]
    training = ~starting & (times < measured["last_batch_s"])
    after = times > measured["last_batch_s"]
    print(
        f"| {title} | {measured['first_batch_s']:.0f} | {gib[starting].max():.2f} | "
        f"{np.median(gib[training]):.2f} | {gib[training].max():.2f} | "
        f"{gib[after].max():.2f} | {measured['waiting']:.2%} |"
    )


def print_over_time(title: str, measured: dict) -> None:
    times, gib = np.array(measured["gib"]).T
    chosen = np.unique(np.linspace(0, len(times) - 1, SHOWN).astype(int))
    print(f"{title}, GiB at s: " + ", ".join(f"{gib[i]:.2f} at {times[i]:.0f}" for i in chosen))


def main() -> None:
    if "--" in sys.argv:
        at = sys.argv.index("--")
        run_measured(["launch.py", *sys.argv[at + 1 :]], Path(sys.argv[at - 1].split("=", 1)[1]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="is made, and deleted")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--dtype", default="uint8", help="config.data.grid_dtype")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True)
    try:
        found = {}
        for count in (FEW, asked.cases):
            root = asked.folder / f"cohort-{count}"
            write_cohort(root, count, asked.side)
            for start in ("first", "later"):
                forget(asked.folder)
                title = f"{count} cases, {start} start"
                found[title] = measure_start(root, asked.folder / f"run-{count}-{start}", asked)
        kept = [path.stat().st_size for path in (asked.folder / "cache").rglob("*.grid")]
    finally:
        shutil.rmtree(asked.folder)
    print(f"\n{len(kept)} grids of {asked.side}³, {sum(kept) / 1e9:.2f} GB on disk\n")
    print("| | first batch, s | most until then, GiB | training | at most | after it | waiting |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for title, measured in found.items():
        print_row(title, measured)
    print()
    for title, measured in found.items():
        print_over_time(title, measured)


if __name__ == "__main__":
    main()
