"""A model's card: the numbers of its run, names as they are, and nobody's own card is replaced."""

import shutil

import pytest
from markdown_it import MarkdownIt
from noise_runs import read_results

from fetal_jax.data.landmark_table import Landmark
from fetal_jax.modes import export, report
from fetal_jax.report import card, page
from fetal_jax.runs import folder
from fetal_jax.runs.finished import open_config
from fetal_jax.runs.results import save_results


def make_source(workdir, first=None):
    run = first or workdir
    return card.Source(
        workdir.name, open_config(run), folder.read_data_record(run), read_results(workdir)
    )


@pytest.fixture(scope="module")
def crossval(noise_crossval):
    return make_source(noise_crossval, noise_crossval / "fold1")


@pytest.fixture(scope="module")
def single(noise_crossval):
    return make_source(noise_crossval / "fold1")


def read_tables(text):
    """The cells of each table, as a reader of the rendered card has them."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    tables = []
    for i, token in enumerate(tokens):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type in ("th_open", "td_open"):
            inline = tokens[i + 1].children
            tables[-1][-1].append("".join(child.content for child in inline))
    return tables


def test_a_cross_validation_s_card_has_its_numbers(crossval):
    pooled, outside = crossval.results["pooled"], crossval.results["external"]
    assert pooled["region"]["all"] is None  # four children of the other fold are too few
    pooled = pooled | {"region": outside["region"]}
    crossval = crossval._replace(results=crossval.results | {"pooled": pooled})
    text = card.render_card(crossval)
    landmarks, data, whole, each = read_tables(text)
    assert [row[0] for row in landmarks[1:]] == ["L", "R", "nose"]
    assert data[1][1:4] == ["9", "8", "20 to 28"] and data[1][4] == "a (9)"
    assert [row[0] for row in whole[1:]] == [
        "test cases", "external cases, each model", "external cases, ensemble",
    ]  # fmt: skip
    for row, one in zip(whole[1:], (pooled, outside, outside["ensemble"]), strict=True):
        assert row[1:4] == [f"{one[k]}" for k in ("cases", "subjects", "landmarks")]
        assert row[4] == page.format_interval(one["d_mean_mm"], one["d_mean_ci_mm"])
        assert row[6] == f"{one['guess_d_mean_mm']:.2f}"
    assert [row[0] for row in each[1:]] == ["L", "R", "nose"]
    held = pooled["region"]["per_landmark"]["R"]
    assert each[2][5] == page.format_percent_interval(held["within"], held["within_ci"])
    assert "tested on at the end: 2 scans of 2 subjects, of b." in text
    assert "2 models, each tested on the fold" in text and "50 % of all points of new" in text
    assert "younger than 20 or older than 28 weeks" in text and "hands than those of a." in text


def test_the_same_run_has_the_same_card(crossval):
    assert card.render_card(crossval) == card.render_card(crossval)


def test_simulated_faces_are_said(crossval):
    assert "no scan of a child" not in card.render_card(crossval)
    config = crossval.config.to_dict()
    config["data"]["root"] = "phantom"
    text = card.render_card(crossval._replace(config=config))
    assert "no scan of a child" in text and "Real scans: it has seen none" in text


def test_a_single_run_tells_where_each_part_went(single):
    _, data, _, _ = read_tables(card.render_card(single))
    assert [row[0] for row in data[1:]] == list(card.SPLITS.values())
    counts = [int(row[1]) for row in data[1:]]
    assert counts == [len(single.record.splits[split]) for split in card.SPLITS]
    assert "*Radius*: it gives none." in card.render_card(single)  # one validation child


def test_names_are_data(single):
    """A label with a pipe stays in its cell; one without a definition is said."""
    odd = Landmark("a|*b*", "<i>", "", "as $x$ | y")
    record = folder.replace(single.record, landmarks=(odd, Landmark("c_d")))
    text = card.render_card(single._replace(record=record, name="runs_#1|x"))
    landmarks, *_ = read_tables(text)
    assert landmarks[1:] == [["a|*b*", "<i>", "as $x$ | y", "–"], ["c_d", "–", "–", "–"]]
    assert "this card: c\\_d." in text and text.startswith("# runs\\_\\#1\\|x: model card")


def test_a_run_that_was_not_tested_says_so(single):
    for results in (None, empty_results(single.results)):
        text = card.render_card(single._replace(results=results))
        assert "**It has not been tested**" in text and "Nobody knows" in text


def empty_results(results):
    none = {key: None for key in ("d_mean_mm", "d_mean_ci_mm", "guess_d_mean_mm")}
    return results | none | {"cases": 0, "landmarks": 0}


def test_an_older_run_has_a_card(single):
    """Without ages and sites in data.json, and with no word of radii."""
    results = {k: v for k, v in single.results.items() if k not in ("region", "program")}
    record = folder.replace(single.record, cohort=None)
    text = card.render_card(single._replace(record=record, results=results))
    assert "ages and sites are not on record" in text and "within their radius" not in text


def test_an_older_cross_validation_counts_all_its_scans(crossval):
    text = card.render_card(crossval._replace(record=folder.replace(crossval.record, cohort=None)))
    assert "Scans: 9 trained and tested on, in turn; their ages" in text


def test_what_somebody_changed_stays(tmp_path):
    path = tmp_path / "card.md"
    assert card.write_card(path, "# one\n") and card.write_card(path, "# two\n")
    assert path.read_text().startswith("# two\n\n<!-- sha256 ")
    path.write_text(path.read_text().replace("two", "my own"))
    assert not card.write_card(path, "# three\n") and "my own" in path.read_text()
    path.write_bytes(b"\xff notes")
    assert not card.write_card(path, "# three\n")


def test_written_with_the_report_and_beside_an_export(
    noise_crossval, tmp_path, monkeypatch, capsys
):
    workdir = tmp_path / "fold1"
    shutil.copytree(noise_crossval / "fold1", workdir)
    assert not (workdir / "card.md").exists()  # of a fold: it is part of another run
    report.run_report(workdir)
    content = (workdir / "card.md").read_bytes()
    assert 'href="../card.md"' in (workdir / "report" / "index.html").read_text()
    monkeypatch.setattr(export, "export_function", lambda find: b"program")
    export.run_export(workdir, tmp_path / "model.jax_export")
    assert (tmp_path / "model.card.md").read_bytes() == content
    (tmp_path / "model.card.md").write_text("my own")
    export.run_export(workdir, tmp_path / "model.jax_export")
    assert (tmp_path / "model.card.md").read_text() == "my own"
    assert "model.card.md is not as it was written, and stays" in capsys.readouterr().out
    save_results(workdir, read_results(workdir) | {"seed": 77})
    report.run_report(workdir)
    assert "seed 77" in (workdir / "card.md").read_text()
