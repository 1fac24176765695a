"""Kill whatever writes, at a random moment or file; start it again; compare with one left alone.

    python tests/kills.py 100 [SEED [WRITER ...]]

The kills are shared out over all that writes. Every attempt is a fork of this process, which has
imported all but started nothing: that saves the imports.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import face_runs  # noqa: E402
import noise_runs  # noqa: E402

from fetal_jax import cli  # noqa: E402
from fetal_jax.modes import crossval, export, phantom, predict, report, train, tune  # noqa: E402, F401

SMALL = {"train.batch": 2, "train.steps": 12, "log.every": 1, "report.on": True}
SMALL["report.surfaces"] = False
TWO_LOOKS = {
    **SMALL,
    "crossval.external_site": "south",
    "grid.side": 16,
    "aligned.on": True,
    "aligned.widths": "(2,)",
    "aligned.steps": 6,
}
# what differs between two runs that are the same: how long they took, where they lie
TIMES = re.compile(
    rb'"(seconds|waiting_share)": [\d.e+-]+|trained for [^<]*|in [\d.]+ minutes|\d+(\.\d+)? s\b'
)


def list_writers(data: Path, run: Path):
    """name -> (arguments, whose output folder is added; what lies there before)."""
    flags = noise_runs.make_flags(data, **SMALL)
    heads = noise_runs.make_flags(data.parent / "heads", **TWO_LOOKS)
    cases = "--config.phantom.cases=6 --config.phantom.spacing_mm=3.0"
    scans = ",".join(str(data / "volumes" / f"c{i}.nii.gz") for i in range(3))
    emd = f"--config={ROOT}/configs/emd.py"
    return {
        "phantom": ([emd, *cases.split(), "--mode=phantom", "--output={}"], None),
        "train": ([*flags, "--workdir={}"], None),
        "two looks": ([*heads, "--workdir={}"], None),
        "crossval": ([*flags, "--mode=crossval", "--workdir={}"], None),
        "tune": (
            [*flags, "--config.report.on=False", "--mode=tune", "--workdir={}"]
            + ["--config.crossval.tuning_share=0.5", "--vary=optim.lr=1e-3,1e-2"],
            None,
        ),
        "report": (["--mode=report", "--workdir={}"], run),
        "evaluate": (["--mode=evaluate", "--workdir={}"], run),
        "predict": (
            ["--mode=predict", f"--workdir={run}", f"--volumes={scans}", "--output={}"],
            None,
        ),
        "adopt": (["--mode=adopt", f"--from={data.parent / 'found'}", "--into={}"], None),
        "export": (["--mode=export", f"--workdir={run}", "--output={}/model.jax_export"], None),
        "export as ONNX": (
            ["--mode=export", f"--workdir={run}", "--format=onnx", "--output={}/model.onnx"],
            None,
        ),
    }


def start(arguments: list[str], room: Path) -> int:
    """The process id of a fork that runs the launcher; what it prints goes to room/printed."""
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.environ["XDG_CACHE_HOME"] = str(room / "cache")
        printed = os.open(room / "printed", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(printed, 1)
        os.dup2(printed, 2)
        try:
            sys.argv = ["launch.py", *arguments]  # where config_flags looks for overrides
            status = cli.main(sys.argv) or 0
        except SystemExit as ended:
            status = ended.code or 0
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status if isinstance(status, int) else 1)


def finish(arguments: list[str], room: Path) -> float:
    """Run it to its end; the seconds that took."""
    began = time.monotonic()
    _, status = os.waitpid(start(arguments, room), 0)
    assert status == 0, f"{' '.join(arguments)}\n{(room / 'printed').read_text()[-3000:]}"
    return time.monotonic() - began


def describe(folder: Path, arguments_of: Path) -> dict[str, str]:
    """Relative path -> digest of what it holds, but for times; checkpoints by their steps alone.

    What training did to the parameters is in each later loss of metrics.jsonl, and in predictions.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if "checkpoints/" in name:
            if path.parent.name == "checkpoints":
                found[name] = "step"
            continue
        if not path.is_file() or path.name == ".lock" or "tensorboard/" in name:
            continue
        content = path.read_bytes()
        if path.name.endswith(".json") and not path.name.endswith(".mrk.json"):
            tree = json.loads(content)
            for one in (tree, *tree.get("folds", ())):
                for key in ("sha256", "seconds", "program"):
                    one.pop(key, None)
            content = json.dumps(tree).encode()
        content = TIMES.sub(b"", content.replace(str(arguments_of).encode(), b""))
        found[name] = hashlib.sha256(content).hexdigest()[:12]
    return found


def count_written(folder: Path, began_ns: int) -> int:
    """How many files were written since then."""
    count = 0
    for at, _, names in os.walk(folder):  # which passes over folders that are gone meanwhile
        for name in names:
            with suppress(OSError):
                count += os.stat(os.path.join(at, name)).st_mtime_ns >= began_ns
    return count


def wait_for_files(folder: Path, began_ns: int, wanted: int, pid: int) -> None:
    """Until so many files were written, or the process has ended."""
    while count_written(folder, began_ns) < wanted:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.002)


def try_writer(name, arguments, before, room: Path, kills: int, rng: random.Random) -> int:
    """How many kills came before the end; raises AssertionError where a result is another."""

    def prepare(at: Path) -> tuple[Path, list[str]]:
        shutil.rmtree(at, ignore_errors=True)
        out = at / "out"
        out.mkdir(parents=True)
        if before is not None:
            shutil.copytree(before, out, dirs_exist_ok=True)
        elif not name.startswith("export"):
            out.rmdir()
        return out, [a.replace("{}", str(out)) for a in arguments]

    for _ in range(1 if kills < 3 else 2):  # the first one compiles
        out, ready = prepare(room / "whole")
        began = time.time_ns()
        seconds = finish(ready, out.parent)
    expected, written, within = describe(out, out), count_written(out, began), 0
    for kill in range(kills):
        out, ready = prepare(room / "killed")
        began, pid = time.time_ns(), start(ready, out.parent)
        if kill % 2:
            time.sleep(rng.uniform(0.05, 1.0) * seconds)
        else:  # while it writes
            wait_for_files(out, began, rng.randrange(written), pid)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        within += status != 0
        finish(ready, out.parent)
        found = describe(out, out)
        wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
        assert not wrong, f"{name}, kill {kill}: another {', '.join(wrong)}"
    return within


def main(kills: int, seed: int, chosen: list[str]) -> None:
    room = Path(tempfile.mkdtemp(prefix="kills-"))
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(room / "xla"))
    data = room / "noise"
    noise_runs.write_cohort(data)
    face_runs.write_cohort(room / "heads")
    run = room / "run"
    finish([*noise_runs.make_flags(data), f"--workdir={run}"], room)
    found = room / "found"
    finish(
        ["--mode=predict", f"--workdir={run}", f"--volumes={data}/volumes", f"--output={found}"],
        room,
    )
    for path in found.glob("*.mrk.json"):
        path.write_text(path.read_text().replace("\n", "\n "))  # as if 3D Slicer had saved it
    writers = list_writers(data, run)
    rng = random.Random(seed)
    writers = {name: writers[name] for name in chosen or writers}
    for number, (name, (arguments, before)) in enumerate(writers.items()):
        share = kills // len(writers) + (number < kills % len(writers))
        began = time.monotonic()
        within = try_writer(name, arguments, before, room / name.replace(" ", "-"), share, rng)
        print(
            f"{name}: {share} kills, {within} before its end: the same files each time "
            f"({time.monotonic() - began:.0f} s)",
            flush=True,
        )
    shutil.rmtree(room)


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:3]]
    main(*numbers, *[0][len(numbers) - 1 :], sys.argv[3:])
