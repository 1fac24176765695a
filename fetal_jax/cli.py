"""Flags to modes; a user's mistake becomes one line and exit status 1."""

import difflib
import gc
import importlib
import logging
import os
import re
import runpy
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from fetal_jax import config_files
from fetal_jax.errors import InputError


class Mode(NamedTuple):
    """What `fetal_jax.modes.NAME.run_NAME` takes, in order; each is one of ARGUMENTS."""

    arguments: tuple[str, ...]
    distributed: bool = False  # whether several processes may run it
    holds: bool = False  # whether it writes into the run's folder, where nobody else may then


MODES = {
    "train": Mode(("config", "workdir"), distributed=True, holds=True),
    "check": Mode(("config", "workdir")),
    "crossval": Mode(("config", "workdir"), distributed=True, holds=True),
    "sweep": Mode(("config", "workdir", "vary", "each"), distributed=True, holds=True),
    "tune": Mode(("config", "workdir", "vary"), distributed=True, holds=True),
    "compare": Mode(("runs", "output")),
    "agreement": Mode(("known_config", "known_run", "from", "output")),
    "evaluate": Mode(("run",), distributed=True, holds=True),
    "alignment": Mode(("run",), holds=True),
    "predict": Mode(("run", "volumes", "output", "format", "overwrite")),
    "adopt": Mode(("from", "into", "annotator", "volumes")),
    "report": Mode(("run",), holds=True),
    "export": Mode(("run", "output", "format")),
    "phantom": Mode(("config", "output")),
}

_FLAGS = flags.FLAGS
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config: a file, as configs/emd.py:paper, or a name, as emd or emd:paper."
)
_MODE = flags.DEFINE_enum("mode", "train", tuple(MODES), "What to do.")
_WORKDIR = flags.DEFINE_string("workdir", "", "The run's folder; runs/NAME-OF-CONFIG if not given.")
_VOLUMES = flags.DEFINE_multi_string(
    "volumes", [], "predict, adopt: files, folders or globs, comma-separated; again for more."
)
_OUTPUT = flags.DEFINE_string(
    "output", "", "predict, phantom, compare, agreement: the folder to write to; export: the file."
)
_RUNS = flags.DEFINE_multi_string(
    "runs", [], "compare: folders of runs, comma-separated; again for more."
)
_FROM = flags.DEFINE_string(
    "from", "", "agreement, adopt: a folder of landmark files, as predict writes them."
)
_INTO = flags.DEFINE_string("into", "", "adopt: the data set's folder, which may be a new one.")
_ANNOTATOR = flags.DEFINE_string(
    "annotator", "", "adopt: whose readings they are; the cases' own landmarks if not given."
)
_VARY = flags.DEFINE_multi_string(
    "vary", [], "sweep, tune: a key and its values, as loss.lambda2=0.1,0.2; again for more."
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
_HELPCONFIG = flags.DEFINE_boolean("helpconfig", False, "Print what each key of a config is for.")
FORMATS = {"predict": ("mrk.json", "fcsv"), "export": ("jax_export", "onnx")}  # the default first
_FORMAT = flags.DEFINE_enum(
    "format",
    None,
    sum(FORMATS.values(), ()),
    "The kind of file: "
    + "; ".join(f"{mode}: {' or '.join(kinds)}" for mode, kinds in FORMATS.items())
    + ".",
)

_OVERWRITE = flags.DEFINE_boolean(
    "overwrite", False, "predict: also landmark files that somebody changed."
)


def main(argv: list[str]) -> int:
    """Run the launcher; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that knows no ω shows ?, and nothing ends
            stream.reconfigure(errors="replace")
    try:
        _parse(argv)
        _set_up_jax()
        _start_processes()
        _run()
    except InputError as error:
        for line in error.problems:
            print(f"error: {line}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise  # no file's
        print(f"error: {_describe_failure(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from the latest checkpoint", file=sys.stderr)
        return 130
    return 0


def _describe_failure(error: OSError) -> str:
    """A file that cannot be written, or read, in one line: a full disk, a folder in its place."""
    where = f"{error.filename}: " if error.filename is not None else ""
    came = error.strerror or str(error)
    return f"{where}{came}; once that is mended, the same command goes on: what was finished stays"


def _put_config_first(argv: list[str]) -> None:
    """In place, as config_flags looks at sys.argv: it wants the file before what overrides it.

    Raises:
      InputError: there is no such config.
    """
    files, rest = [], argv[1:]
    for i in reversed(range(len(rest))):
        if re.match(r"--?config=", rest[i]):
            files.insert(0, rest.pop(i).split("=", 1)[1])
        elif re.match(r"--?config$", rest[i]) and i + 1 < len(rest):
            files.insert(0, rest.pop(i + 1))
            rest.pop(i)
    argv[1:] = [f"--config={config_files.find_config(file)}" for file in files] + rest


def _parse(argv: list[str]) -> None:
    for argument in argv[1:]:
        if re.match(r"--?help(short|full|xml)?$|-\?$|-h$", argument):
            print(sys.modules["__main__"].__doc__ or _read_command_help())
            print(_FLAGS.module_help(sys.modules[__name__]))
            raise SystemExit(0)
    _put_config_first(argv)
    config_files.share_configs()
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


def _read_command_help() -> str:
    """What the installed command says of itself: pip's script for it says nothing."""
    return importlib.import_module("fetal_jax.__main__").__doc__


def _explain(argv, error) -> str:
    """One line for what absl and config_flags say in many."""
    path = next((a.split("=", 1)[1] for a in reversed(argv) if re.match(r"--?config=", a)), "")
    for argument in argv[1:]:
        key = re.match(r"--?config\.([\w.]+)", argument)
        if key and not path:
            return f"{argument}: expected --config too, as --config=fine, whose key this changes"
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
    # to trace a program makes many small objects that stay: to look through all that is loaded
    # after each 700 of them, as is Python's default, takes a tenth of a short run
    gc.set_threshold(50_000)
    import jax

    from fetal_jax.data.from_config import find_cache
    from fetal_jax.training.devices import reuse_memory

    reuse_memory()
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(find_cache() / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    for name in ("absl", "jax", "orbax"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _start_processes() -> None:
    if not (_DISTRIBUTED.value or _COORDINATOR.value):
        return
    if not MODES[_MODE.value].distributed:
        able = ", ".join(name for name, mode in MODES.items() if mode.distributed)
        raise InputError(
            f"--mode={_MODE.value}: expected one process, or a mode of {able}, got --distributed"
        )
    if _COORDINATOR.value and not 0 <= _PROCESS.value < _PROCESSES.value:
        raise InputError(
            "--coordinator: expected --processes=N and --process=0 to N-1, got "
            f"--processes={_PROCESSES.value} --process={_PROCESS.value}"
        )
    from fetal_jax.training.processes import start_processes

    start_processes(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)


def _run() -> None:
    if _HELPCONFIG.value:
        from fetal_jax.runs.config_table import format_help

        print(format_help())
        return
    name = _MODE.value
    arguments = [ARGUMENTS[argument]() for argument in MODES[name].arguments]
    module = importlib.import_module(f"fetal_jax.modes.{name}")
    with _hold_folder(MODES[name], arguments):
        getattr(module, f"run_{name}")(*arguments)


def _hold_folder(mode: Mode, arguments: list) -> AbstractContextManager:
    """The run's folder, by the first process; of a run that is not there the mode says so."""
    from fetal_jax.runs import folder
    from fetal_jax.training.processes import is_first

    given = dict(zip(mode.arguments, arguments, strict=True))
    if given.get("into"):
        return folder.hold(given["into"])
    if "output" in given and "volumes" in given:  # predict writes elsewhere than into the run
        return folder.hold(given["output"])
    held = given.get("workdir") or given.get("run")
    there = "workdir" in given or (held is not None and held.is_dir())
    return folder.hold(held) if mode.holds and there and is_first() else nullcontext()


def _read_config() -> ConfigDict:
    if _CONFIG.value is None:
        raise InputError(f"--mode={_MODE.value}: expected --config, as configs/emd.py, got none")
    return _CONFIG.value


def _choose_workdir() -> Path:
    """--workdir, else a folder named after the config."""
    if _WORKDIR.value:
        return Path(_WORKDIR.value).expanduser()
    file, _, recipe = _FLAGS["config"].config_filename.partition(":")
    mode = _MODE.value if _MODE.value in ("crossval", "sweep", "tune") else ""
    return Path("runs") / "-".join(filter(None, (Path(file).stem, recipe, mode)))


def _require_run() -> Path:
    if not _WORKDIR.value:
        raise InputError(
            f"--mode={_MODE.value}: expected --workdir, a finished run's folder, got none"
        )
    return Path(_WORKDIR.value).expanduser()


def _choose_output() -> Path:
    mode, run = _MODE.value, Path(_WORKDIR.value).expanduser()
    if mode == "phantom" and not _OUTPUT.value:
        raise InputError("--mode=phantom: expected --output, a folder to write to, got none")
    otherwise = {
        "compare": Path("runs/comparison"),
        "agreement": (run if _WORKDIR.value else Path("runs")) / "agreement",
        "predict": run / "found",
    }
    if _OUTPUT.value:
        return Path(_OUTPUT.value).expanduser()
    return run / f"model.{_choose_format()}" if mode == "export" else otherwise[mode]


def _choose_format() -> str:
    kinds, given = FORMATS[_MODE.value], _FORMAT.value
    if given not in (None, *kinds):
        raise InputError(
            f"--format={given}: expected {' or '.join(kinds)} for --mode={_MODE.value}, got {given}"
        )
    return given or kinds[0]


def _list_paths(values: list[str]) -> list[str]:
    """Comma-separated paths; a comma that is part of a name that exists is no separator."""
    paths = []
    for value in values:
        parts = value.split(",")
        while parts:
            ends = range(len(parts), 0, -1)
            names = [os.path.expanduser(",".join(parts[:end])) for end in ends]
            taken = next((i for i, name in enumerate(names) if Path(name).exists()), len(parts) - 1)
            paths.append(names[taken])
            del parts[: ends[taken]]
    return [path for path in paths if path]


ARGUMENTS: dict[str, Callable] = {
    "config": _read_config,
    "workdir": _choose_workdir,
    "run": _require_run,
    "output": _choose_output,
    "volumes": lambda: _list_paths(_VOLUMES.value),
    "format": _choose_format,
    "overwrite": lambda: _OVERWRITE.value,
    "runs": lambda: _list_paths(_RUNS.value),
    "known_config": lambda: _CONFIG.value,
    "known_run": lambda: _require_run() if _WORKDIR.value else None,
    "from": lambda: Path(_FROM.value).expanduser() if _FROM.value else None,
    "into": lambda: Path(_INTO.value).expanduser() if _INTO.value else None,
    "annotator": lambda: _ANNOTATOR.value,
    "vary": lambda: _VARY.value,
    "each": lambda: _EACH.value,
}
