"""`--vary`: a config for each combination of some of its values."""

import ast
import itertools
from collections.abc import Sequence

from ml_collections import ConfigDict, FrozenConfigDict

from fetal_jax.errors import InputError
from fetal_jax.runs.config_table import check_config


def list_combinations(config: ConfigDict, vary: Sequence[str]) -> dict[str, FrozenConfigDict]:
    """Name -> config of each combination; the name says what was varied, as a folder's may.

    Args:
      vary: of `parse_vary`, each key once.

    Raises:
      InputError: a key twice, a value twice, or one that no run could use.
    """
    axes = [parse_vary(config, text) for text in vary]
    keys = [key for key, _ in axes]
    if len(set(keys)) < len(keys):
        raise InputError(f"--vary: expected each key once, got {', '.join(keys)}")
    configs: dict[str, FrozenConfigDict] = {}
    for values in itertools.product(*(values for _, values in axes)):
        changes = dict(zip(keys, values, strict=True))
        changed = ConfigDict(config.to_dict())
        changed.update_from_flattened_dict(changes)
        name = ",".join(f"{k}={_name(v)}" for k, v in changes.items())
        if name in configs:
            raise InputError(f"--vary: expected values that differ, got {name} twice")
        configs[name] = check_config(changed)
    return configs


def parse_vary(config: ConfigDict, text: str) -> tuple[str, list]:
    """'loss.omega=0.5,2' to ('loss.omega', [0.5, 2.0]), of the type that the config has there.

    Raises:
      InputError: no such key, no values, or values of another type.
    """
    key, _, values = text.partition("=")
    key = key.removeprefix("config.")
    try:
        before = _look_up(config, key)
    except (KeyError, TypeError):
        raise InputError(f"--vary={text}: expected a key of the config, got {key!r}") from None
    if isinstance(before, str):
        return key, [value.strip() for value in values.split(",")]
    try:
        found = list(ast.literal_eval(f"[{values}]"))
    except (SyntaxError, ValueError):
        found = []
    if isinstance(before, float):
        found = [float(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in found]
    if not found or any(type(value) is not type(before) for value in found):
        kind = type(before).__name__
        raise InputError(
            f"--vary={text}: expected values of type {kind}, comma-separated, got {values!r}"
        )
    return key, found


def _look_up(config, key):
    for part in key.split("."):
        config = config[part]
    return config


def _name(value) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("/", "_").replace(" ", "")
