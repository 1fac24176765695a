"""The folders of the package: configs/ lies inside it; the rest is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["fetal_jax*"]), "fetal_jax.configs"],
    package_dir={"fetal_jax.configs": "configs"},
)
