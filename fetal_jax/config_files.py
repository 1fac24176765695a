"""Config files: those of this project, found by their names, and anybody's own, found by a path.

A checkout has them in configs/ beside the package; an installed package has them inside.
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from fetal_jax.errors import InputError

PACKAGE = Path(__file__).parent
SUFFIX = ".py"


def find_shipped() -> Path:
    """The folder of the configs that come with the program."""
    inside = PACKAGE / "configs"
    return inside if inside.is_dir() else PACKAGE.parent / "configs"


def list_names() -> list[str]:
    """The names of the configs that come with the program."""
    return sorted(path.stem for path in find_shipped().glob(f"*{SUFFIX}"))


def find_config(given: str) -> str:
    """The path of a config, with its recipe, as `config_flags` wants it: FILE.py or FILE.py:RECIPE.

    Args:
      given: a path, or the name of a config that comes with the program, as emd or emd:paper.

    Raises:
      InputError: it is neither.
    """
    name, colon, recipe = given.partition(":")
    if Path(name).is_file():
        return given
    if name in list_names():
        return f"{find_shipped() / name}{SUFFIX}{colon}{recipe}"
    raise InputError(
        f"--config={given}: expected a config file, or the name of one: "
        f"{', '.join(list_names())}; got neither"
    )


def share_configs() -> None:
    """Let a config say `from configs import emd`, wherever the program was installed.

    In a checkout Python finds that folder by itself.
    """
    shipped, found = str(find_shipped()), importlib.util.find_spec("configs")
    if found is None or shipped not in (found.submodule_search_locations or ()):
        configs = ModuleType("configs")
        configs.__path__ = [shipped]
        sys.modules["configs"] = configs
