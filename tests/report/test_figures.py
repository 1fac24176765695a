"""Colours that are told apart, in one place; and a blank figure."""

from importlib.resources import files

import numpy as np
from matplotlib.colors import to_rgb

from fetal_jax.report import figures


def find_lightness(colour):
    """Relative luminance, without the gamma, which keeps the order."""
    return np.dot(to_rgb(colour), [0.2126, 0.7152, 0.0722])


def test_balls_of_truth_and_prediction_differ_in_light_too():
    """So that they are told apart in grey, and whatever one's cones are."""
    truth, predicted = map(find_lightness, figures.ON_SKIN)
    assert predicted - truth > 0.4


def test_the_page_and_its_viewer_have_the_colours_of_the_pictures():
    truth, predicted = figures.ON_SCAN
    folder = files("fetal_jax.report")
    assert f'truth: "{truth}", predicted: "{predicted}"' in (folder / "viewer.js").read_text()
    assert f"--truth: {truth}; --predicted: {predicted}" in (folder / "page.css").read_text()


def test_a_blank_figure():
    figure, axes = figures.start_figure(4.0, 3.0, 2, 3)
    assert axes.shape == (2, 3) and figure.get_size_inches().tolist() == [4.0, 3.0]
    assert figures.start_figure(1.0, 1.0)[1].shape == (1, 1)


def test_names_are_no_formulas():
    """Two $ in a name would be one, and most of them cannot be read as such."""
    figure, axes = figures.start_figure(3, 2)
    ax = axes[0, 0]
    ax.plot([1, 2], [1, 300], label="$\\nothing$ of $this")
    ax.set_title("case $a_$b^$")
    ax.set_xticks([1, 2], ["$x_$", "y"])
    ax.set_yscale("log")
    figure.legend()
    figures.take_literally(figure)
    figure.canvas.draw()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["$x_$", "y"]
    powers = [label for label in ax.get_yticklabels() if label.get_text()]
    assert powers and all(label.get_parse_math() for label in powers)
