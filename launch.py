"""The launcher: flags, the config, one call. What it calls can be imported and tested.

python launch.py --config=configs/emd.py [--config.KEY=VALUE …] [--mode=MODE] [--workdir=FOLDER]
"""

import sys

from fetal_jax import cli

if __name__ == "__main__":
    sys.exit(cli.main(sys.argv))
