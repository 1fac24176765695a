"""Predictions that are killed once; all that writes, by hand, in `kills.py`."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_what_was_killed_and_started_again_leaves_the_same_files():
    ended = subprocess.run(
        [sys.executable, "tests/kills.py", "1", "0", "predict"],
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("1 kills, 1 before its end: the same files") == 1
