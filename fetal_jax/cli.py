"""Flags to modes; a user's mistake becomes one line and exit status 1."""

import difflib
import logging
import os
import re
import runpy
import sys
import warnings
from functools import partial
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from fetal_jax.errors import InputError

MODES = (
    "train",
    "check",
    "crossval",
    "sweep",
    "compare",
    "evaluate",
    "predict",
    "report",
    "export",
    "phantom",
)
DISTRIBUTED_MODES = ("train", "crossval", "sweep", "evaluate")

_FLAGS = flags.FLAGS
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, as configs/emd.py or configs/emd.py:paper."
)
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_WORKDIR = flags.DEFINE_string("workdir", "", "The run's folder; runs/NAME-OF-CONFIG if not given.")
_VOLUMES = flags.DEFINE_list("volumes", [], "predict: files, folders or globs, comma-separated.")
_OUTPUT = flags.DEFINE_string(
    "output", "", "predict, phantom, compare: the folder to write to; export: the file."
)
_RUNS = flags.DEFINE_list("runs", [], "compare: folders of runs, comma-separated.")
_VARY = flags.DEFINE_multi_string(
    "vary", [], "sweep: a key and its values, as loss.lambda2=0.1,0.2; again for more keys."
)
_EACH = flags.DEFINE_enum("each", "train", ("train", "crossval"), "sweep: what each run is.")
_DISTRIBUTED = flags.DEFINE_boolean(
    "distributed", False, "Several processes, as Slurm, Open MPI or a TPU slice start them."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", "", "Several processes that you start yourself: host:port of the first."
)
_PROCESSES = flags.DEFINE_integer("processes", 0, "With --coordinator: how many there are.")
_PROCESS = flags.DEFINE_integer("process", -1, "With --coordinator: which this is, from 0.")
_FORMAT = flags.DEFINE_enum("format", "mrk.json", ("mrk.json", "fcsv"), "predict: kind of file.")


def main(argv: list[str]) -> int:
    """Run the launcher; returns the exit status."""
    try:
        _parse(argv)
        _set_up_jax()
        _start_processes()
        _run()
    except InputError as error:
        for line in error.problems:
            print(f"error: {line}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the latest checkpoint", file=sys.stderr)
        return 130
    return 0


def _put_config_first(argv: list[str]) -> None:
    """In place, as config_flags looks at sys.argv: it wants the file before what overrides it."""
    for i, argument in enumerate(argv):
        if re.match(r"--?config(=|$)", argument):
            file = argv[i : i + 1 if "=" in argument else i + 2]
            argv[i : i + len(file)] = []
            argv[1:1] = file
            return


def _parse(argv: list[str]) -> None:
    _put_config_first(argv)
    for argument in argv[1:]:
        if re.match(r"--?help(short|full|xml)?$|-\?$|-h$", argument):
            print(__import__("__main__").__doc__)
            print(_FLAGS.module_help(sys.modules[__name__]))
            raise SystemExit(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # config_flags' load_module
            rest = _FLAGS(argv)
            if _CONFIG.value is not None:
                dict(_CONFIG.value)  # a file that is not there shows only when its value is used
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(_explain(argv, error)) from None
    if len(rest) > 1:
        raise InputError(f"expected flags, as --mode=train, got {rest[1]!r}")


def _explain(argv, error) -> str:
    """One line for what absl and config_flags say in many."""
    path = next((a.split("=", 1)[1] for a in reversed(argv) if re.match(r"--?config=", a)), "")
    if path and not Path(path.split(":")[0]).is_file():
        return f"--config={path}: expected a config file, got no such file"
    for argument in argv[1:]:
        key = re.match(r"--?config\.([\w.]+)", argument)
        unknown = key and _find_unknown_key(path, key.group(1).split("."))
        if unknown:
            return f"{argument}: {unknown}"
    return " ".join(str(error).replace("\\n", " ").split())


def _find_unknown_key(path: str, parts: list[str]) -> str:
    """'' if config.PARTS exists in the config file at `path`, or if that cannot be read."""
    try:
        file, _, recipe = path.partition(":")
        node = runpy.run_path(file)["get_config"](recipe).to_dict()
    except (OSError, ValueError, KeyError):
        return ""
    for depth, part in enumerate(parts):
        if not isinstance(node, dict) or part not in node:
            known = list(node) if isinstance(node, dict) else []
            near = difflib.get_close_matches(part, known, n=1, cutoff=0)
            prefix = ".".join(["config", *parts[:depth]])
            nearest = f"; the nearest is {prefix}.{near[0]}" if near else ""
            return f"expected a key of the config, got {prefix}.{part}{nearest}"
        node = node[part]
    return ""


def _set_up_jax() -> None:
    """Compiled programs are kept between runs, and memory between steps."""
    import jax

    from fetal_jax.data import from_config as data
    from fetal_jax.training import parallel

    parallel.reuse_memory()
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(data.cache_folder() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    for name in ("absl", "jax", "orbax"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _start_processes() -> None:
    if not (_DISTRIBUTED.value or _COORDINATOR.value):
        return
    if _MODE.value not in DISTRIBUTED_MODES:
        raise InputError(
            f"--mode={_MODE.value}: expected one process, or a mode of "
            f"{', '.join(DISTRIBUTED_MODES)}, got --distributed"
        )
    if _COORDINATOR.value and not 0 <= _PROCESS.value < _PROCESSES.value:
        raise InputError(
            "--coordinator: expected --processes=N and --process=0 to N-1, got "
            f"--processes={_PROCESSES.value} --process={_PROCESS.value}"
        )
    from fetal_jax.training import parallel

    parallel.start_processes(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)


def _run() -> None:
    from fetal_jax.data import from_config as data
    from fetal_jax.modes import check, compare, crossval, export, predict, sweep
    from fetal_jax.modes import report as rebuild
    from fetal_jax.modes import train as experiment

    mode, config = _MODE.value, _CONFIG.value
    if mode == "compare":
        compare.run_compare(_RUNS.value, Path(_OUTPUT.value or "runs/comparison"))
        return
    if mode in ("evaluate", "predict", "report", "export"):
        if not _WORKDIR.value:
            raise InputError(
                f"--mode={mode}: expected --workdir, a finished run's folder, got none"
            )
        workdir = Path(_WORKDIR.value)
        if mode == "evaluate":
            experiment.run_evaluate(workdir)
        elif mode == "report":
            rebuild.run_report(workdir)
        elif mode == "export":
            export.run_export(workdir, Path(_OUTPUT.value or workdir / "model.jax_export"))
        else:
            output = Path(_OUTPUT.value or workdir / "found")
            predict.run_predict(workdir, _VOLUMES.value, output, _FORMAT.value)
        return
    if config is None:
        raise InputError(f"--mode={mode}: expected --config, as configs/emd.py, got none")
    if mode == "phantom":
        if not _OUTPUT.value:
            raise InputError("--mode=phantom: expected --output, a folder to write to, got none")
        data.run_phantom(config, Path(_OUTPUT.value))
        return
    name = _FLAGS["config"].config_filename
    workdir = Path(_WORKDIR.value or f"runs/{Path(name.split(':')[0]).stem}")
    if ":" in name and not _WORKDIR.value:
        workdir = workdir.with_name(f"{workdir.name}-{name.split(':')[1]}")
    if mode in ("crossval", "sweep") and not _WORKDIR.value:
        workdir = workdir.with_name(f"{workdir.name}-{mode}")
    programs = {
        "train": experiment.run_train,
        "check": check.run_check,
        "crossval": crossval.run_crossval,
        "sweep": partial(sweep.run_sweep, vary=_VARY.value, each=_EACH.value),
    }
    programs[mode](config, workdir)
