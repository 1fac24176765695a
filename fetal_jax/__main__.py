"""The command of an installed package, `python launch.py` of a checkout.

fetal_jax --config=emd [--config.KEY=VALUE …] [--mode=MODE] [--workdir=FOLDER]

A config is a path, as configs/mine.py, or the name of one that comes with the program.
"""

import sys

from fetal_jax import cli


def main() -> int:
    return cli.main(sys.argv)


if __name__ == "__main__":
    sys.exit(main())
