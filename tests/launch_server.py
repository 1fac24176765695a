"""Runs launch.py many times while the libraries are imported once: each run is a fork of this.

A line on stdin is a JSON object with argv, cwd, stdout and stderr (the last two are files); the
exit status of that run is the answer.
"""

import json
import os
import runpy
import sys
import traceback
from pathlib import Path

from fetal_jax import cli  # noqa: F401
from fetal_jax.modes import check, compare, crossval, export, predict, sweep  # noqa: F401
from fetal_jax.report import pictures  # noqa: F401

LAUNCH = Path(__file__).parents[1] / "launch.py"


def run(request: dict) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    os.chdir(request["cwd"])
    sys.argv = [str(LAUNCH), *request["argv"]]
    status = 1
    try:
        runpy.run_path(str(LAUNCH), run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


for line in sys.stdin:
    child = os.fork()
    if not child:
        run(json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
