"""A run that begins as another: its networks, by label, printed and written down; or one line."""

import shutil
from pathlib import Path

import jax
import noise_runs
import numpy as np
import pytest

from fetal_jax.errors import InputError
from fetal_jax.modes import crossval, train
from fetal_jax.runs import finished, folder


@pytest.fixture
def fold(noise_crossval):
    return noise_crossval / "fold1"


@pytest.fixture
def other_root(noise_root, tmp_path):
    """Scans that the fold has not seen, with other landmarks: L and a new one, `chin`."""
    root = Path(shutil.copytree(noise_root, tmp_path / "other"))
    rng = np.random.default_rng(5)
    for path in sorted((root / "volumes").iterdir()):
        voxels = rng.integers(0, 255, (noise_runs.SIDE,) * 3, dtype=np.uint8)
        noise_runs.write_nifti(path, voxels, noise_runs.AFFINE)
    for path in sorted((root / "landmarks").iterdir()):
        text = path.read_text().replace('"nose"', '"chin"')
        path.write_text(text)
    return root


def make_config(root, run, **changes):
    changes = {"init.run": str(run), "data.test_folds": 3} | changes
    return noise_runs.make_config(root, **changes)


def read_params(run):
    record = folder.read_data_record(run)
    detector = finished.build_detector(finished.open_config(run), len(record.labels))
    return finished.restore_best(run, detector).params


def test_what_is_taken_over_stays_where_it_does_not_learn(fold, other_root, tmp_path, capsys):
    """On another grid; `chin` is new, so the layer that paints maps learns."""
    changes = {"init.lr_share": 0.0, "grid.side": 16, "data.labels": ("L", "chin")}
    train.run_train(make_config(other_root, fold, **changes), tmp_path / "run")
    printed = capsys.readouterr().out
    assert f"  starts from {fold}, step " in printed
    assert "; 1 of 2 landmarks anew: chin\n" in printed
    before, after = read_params(fold)["params"], read_params(tmp_path / "run")["params"]
    before.pop("logits_kernel"), before.pop("logits_bias")
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before, {k: after[k] for k in before})
    assert max(jax.tree.leaves(moved)) == 0.0
    started = noise_runs.read_results(tmp_path / "run")["started_from"]
    assert started == {"run": str(fold), "step": noise_runs.read_results(fold)["best_step"]}
    record = folder.read_json(tmp_path / "run" / "init.json")
    assert record["run"] == str(fold) and record["landmarks_anew"] == ["chin"]
    assert len(record["taken"]) == len(jax.tree.leaves(before))


def test_it_learns_at_a_rate_of_its_own(fold, other_root, tmp_path):
    """How far the parameters get in one step of Adam is the rate."""
    moved = []
    for share in (1.0, 0.1):
        run = tmp_path / f"run{share}"
        config = make_config(
            other_root,
            fold,
            **{"init.lr_share": share, "train.steps": 1, "optim.warmup_steps": 0},
        )
        train.run_train(config, run)
        pair = (read_params(one)["params"]["norm_out"]["scale"] for one in (fold, run))
        moved.append(np.abs(np.subtract(*pair)).max())
    assert moved[0] > 0 and moved[1] / moved[0] == pytest.approx(0.1, rel=0.02)


def test_once_begun_it_needs_no_more_than_its_own_folder(fold, other_root, tmp_path, capsys):
    source, run = Path(shutil.copytree(fold, tmp_path / "source")), tmp_path / "run"
    changes = {"init.lr_share": 0.0, "train.steps": 2}
    train.run_train(make_config(other_root, source, **changes), run)
    shutil.rmtree(source)
    train.run_train(make_config(other_root, source, **changes | {"train.steps": 4}), run)
    assert "going on from step 2 of 4" in capsys.readouterr().out
    for name in ("down0", "norm_out"):  # what does not learn did not in the second part either
        pair = [jax.tree.leaves(read_params(one)["params"][name]) for one in (fold, run)]
        for ours, theirs in zip(*pair, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.widths": (3,)}, "config.model: expected the network of .* is .* there"),
        ({"init.run": "gone"}, "gone/data.json: expected a file of a run, got no such file"),
    ],
)
def test_what_cannot_be_started_from_is_one_line(fold, other_root, tmp_path, changes, words):
    config = make_config(other_root, fold, **changes)
    with pytest.raises(InputError, match=words) as caught:
        train.run_train(config, tmp_path / "run")
    assert len(caught.value.problems) == 1


def test_a_cross_validation_is_not_one_run(noise_crossval, other_root, tmp_path):
    config = make_config(other_root, noise_crossval)
    with pytest.raises(InputError, match="got the cross-validation .* name one of its folds"):
        train.run_train(config, tmp_path / "run")


@pytest.mark.parametrize("mode", ["train", "crossval"])
def test_a_run_that_has_learned_from_the_test_is_refused(
    noise_crossval, noise_root, tmp_path, mode
):
    run = {"train": train.run_train, "crossval": crossval.run_crossval}[mode]
    with pytest.raises(InputError, match="that has not learned from this one's test cases, got"):
        for fold in ("fold1", "fold2"):  # what tests now was learned from in one of them
            run(make_config(noise_root, noise_crossval / fold), tmp_path / "run" / fold)
