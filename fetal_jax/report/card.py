"""A model's card: what it finds, what it learned from, how good it is, what it is not for.

After Mitchell et al. 2019, Model Cards for Model Reporting, doi 10.1145/3287560.3287596. Every
number is one of results.json or data.json.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fetal_jax.io.files import write_atomically
from fetal_jax.report import page
from fetal_jax.report.markdown import escape_text, format_table
from fetal_jax.report.sections import format_program
from fetal_jax.runs.cohort import join_cohorts
from fetal_jax.runs.folder import DataRecord
from fetal_jax.runs.region import format_region
from fetal_jax.runs.summary import ENSEMBLE

SEAL = "<!-- sha256 of what stands above: "
SPLITS = {"train": "trained on", "validation": "chosen and calibrated on", "test": "tested on"}
IN_TURN = "trained and tested on, in turn"
VISIBLE_RULE = """\
- A point is *visible* where the scan shows it: it is set where it is seen.
- A point that the scan does not show, but that its annotator placed all the same, is *completed*: \
it is in the landmark file and not in the column `visible` of `cases.csv`.
- A point that nobody can place is left out, or *undefined* in Slicer: it is *absent*, and counts \
nowhere."""


class Source(NamedTuple):
    """What a card is made of.

    name: of the model.
    config: of the run.
    record: data.json, of a cross-validation that of its first fold.
    results: results.json, or None of a run that has not been evaluated.
    """

    name: str
    config: Mapping
    record: DataRecord
    results: dict | None


def render_card(source: Source) -> str:
    """The card, as Markdown; the same of the same run."""
    parts = _list_parts(source.results)
    body = [
        f"# {escape_text(source.name)}: model card",
        _render_result(parts),
        "## What it finds",
        _render_landmarks(source.record),
        "## What it learned from",
        _render_data(source),
        "## How it was made",
        _render_making(source),
        "## How good it is",
        _render_accuracy(parts),
        "## What its numbers mean",
        _render_meaning(source, parts),
        "## What it must not be used for",
        _render_limits(source),
    ]
    return "\n\n".join(body) + "\n"


def write_card(path: Path, text: str) -> bool:
    """Write a card, but over none that somebody made or changed; whether it was written."""
    if path.exists() and not _is_own(path):
        return False
    digest = hashlib.sha256(text.encode()).hexdigest()
    write_atomically(path, f"{text}\n{SEAL}{digest} -->\n".encode())
    return True


def _is_own(path: Path) -> bool:
    try:
        text, seal, digest = path.read_text(encoding="utf-8").rpartition(f"\n{SEAL}")
    except (OSError, UnicodeDecodeError):
        return False
    return bool(seal) and digest == f"{hashlib.sha256(text.encode()).hexdigest()} -->\n"


def _list_parts(results: dict | None) -> dict[str, dict]:
    """Title -> numbers of `summary.summarise_parts`, the first being the one that counts."""
    if results is None:
        return {}
    parts = {"test cases": results.get("pooled", results)}
    if external := results.get("external"):
        parts["external cases, each model"] = external
        parts["external cases, ensemble"] = external[ENSEMBLE]
    return {title: one for title, one in parts.items() if one["cases"]}


def _render_result(parts: dict[str, dict]) -> str:
    measured = {title: one for title, one in parts.items() if one["landmarks"]}
    if not measured:
        return "**It has not been tested**: no visible landmark of a test case says how good it is."
    return "\n".join(
        f"- **{title}**: {page.format_interval(one['d_mean_mm'], one['d_mean_ci_mm'])} mm mean "
        f"error (95 % interval) on {one['landmarks']} visible landmarks of {one['cases']} scans; a "
        f"guess that ignores the image: {page.format_number(one['guess_d_mean_mm'])} mm."
        for title, one in measured.items()
    )


def _render_landmarks(record: DataRecord) -> str:
    landmarks = record.landmarks
    rows = [
        [escape_text(text) or "–" for text in (one.label, one.name, one.definition, one.mirror)]
        for one in landmarks
    ]
    said = [
        f"{len(landmarks)} landmarks in a 3D volume, each a point in mm of the scan's world, and "
        "how sure it is of each. Who annotates for it, or corrects it, sets points by the same "
        "definitions:",
        format_table(["label", "name", "definition", "other side"], rows),
    ]
    if undefined := [one.label for one in landmarks if not one.definition]:
        named = ", ".join(map(escape_text, undefined))
        said.append(
            f"The data set's `landmarks.csv` defines none of these, and so nobody can set them "
            f"alike by this card: {named}."
        )
    return "\n\n".join([*said, VISIBLE_RULE])


def _render_data(source: Source) -> str:
    root = source.config["data"]["root"]
    named = f"Data set: `{Path(root).name.replace('`', chr(39))}`."
    if _is_simulated(source):
        named += " **Simulated faces, no scan of a child.**"
    if external := (source.results or {}).get("external"):
        sites = ", ".join(escape_text(site) for site in external["per_site"])
        named += (
            f" Held out of what follows, and tested on at the end: {external['cases']} scans of "
            f"{external['subjects']} subjects, of {sites}."
        )
    if source.record.cohort is None:
        counts = _count_scans(source)
        return f"{named}\n\nScans: {counts}; their ages and sites are not on record."
    rows = [_list_cohort(words, cohort) for words, cohort in _list_cohorts(source).items()]
    heads = ["", "scans", "subjects", "weeks of gestation", "sites (scans)"]
    return f"{named}\n\n{format_table(heads, rows)}"


def _count_scans(source: Source) -> str:
    counts = {words: len(source.record.splits[split]) for split, words in SPLITS.items()}
    if _is_crossval(source):
        counts = {IN_TURN: sum(counts.values())}
    return ", ".join(f"{n} {words}" for words, n in counts.items())


def _list_cohorts(source: Source) -> dict[str, dict]:
    cohort = source.record.cohort
    if _is_crossval(source):
        return {IN_TURN: join_cohorts(cohort.values())}
    return {words: cohort[split] for split, words in SPLITS.items()}


def _list_cohort(words: str, cohort: dict) -> list[str]:
    ages = cohort["age_weeks"]
    sites = [f"{escape_text(s) or 'unknown'} ({n})" for s, n in cohort["sites"].items()]
    weeks = "not known" if ages is None else f"{ages[0]:g} to {ages[1]:g}"
    return [words, f"{cohort['cases']}", f"{cohort['subjects']}", weeks, ", ".join(sites)]


def _render_making(source: Source) -> str:
    results, asked = source.results or {}, source.record.preprocessing
    facts = []
    if "detector" in results:
        facts.append(f"Trained with {escape_text(results['detector'])}.")
    steps = results.get("steps")
    if steps is not None:
        again = results.get("second_steps")
        second = f", and {again} steps of a second network in the face's own frame" if again else ""
        facts.append(f"{steps} steps{second}; seed {results['seed']}.")
    if _is_crossval(source):
        facts.append(
            f"{len(results['folds'])} models, each tested on the fold of subjects that it did not "
            "see; together they give the mean of what they find."
        )
    facts.append(f"First look at {asked.side}³ voxels of {asked.spacing_mm:.3g} mm.")
    if start := results.get("started_from"):
        run = escape_text(Path(start["run"]).name)
        facts.append(f"It began as {run}, step {start['step']}.")
    if program := format_program(results):
        facts.append(f"{escape_text(program)}.")
    facts.append("All settings are in `config.json` of the run.")
    return "\n".join(f"- {fact}" for fact in facts)


def _render_accuracy(parts: dict[str, dict]) -> str:
    if not any(one["landmarks"] for one in parts.values()):
        return "Nobody knows: no test case had a landmark to measure by."
    radii = list(next(iter(parts.values()))["success_rate"])
    heads = ["", "scans", "subjects", "points", "mean error, mm (95 %)", "median", "guess"]
    heads += [f"within {float(r):g} mm" for r in radii]
    rows = [
        [
            *(title, f"{one['cases']}", f"{one['subjects']}", f"{one['landmarks']}"),
            page.format_interval(one["d_mean_mm"], one["d_mean_ci_mm"]),
            page.format_number(one["d_median_mm"]),
            page.format_number(one["guess_d_mean_mm"]),
            *(page.format_percent(one["success_rate"][r]) for r in radii),
        ]
        for title, one in parts.items()
    ]
    said = [format_table(heads, rows), *_list_notes(parts)]
    title, first = next(iter(parts.items()))
    return "\n\n".join([*said, f"Each landmark, {title}:", _tabulate_landmarks(first)])


def _list_notes(parts: dict[str, dict]) -> list[str]:
    said = []
    for title, one in parts.items():
        if one["completed"]["n"]:
            error = page.format_interval(
                one["completed"]["d_mean_mm"], one["completed"]["d_mean_ci_mm"]
            )
            said.append(
                f"{title}: the {one['completed']['n']} points that cannot be seen are {error} mm "
                "from where an annotator completed them, and count in no other error here."
                + _describe_hidden(one.get("region"))
            )
        if one["annotators"]:
            apart = one["annotators"]["apart_mm"]
            said.append(f"{title}: two annotators are {apart:.2f} mm apart.")
        if region := one.get("region"):
            said.append(f"{title}: {format_region(region)}.")
    return ["\n".join(f"- {sentence}" for sentence in said)] if said else []


def _describe_hidden(region: dict | None) -> str:
    """Of points that cannot be seen, a sentence on their radii, where there are some."""
    held = ((region or {}).get("completed") or {}).get("within")
    return "" if held is None else f" {page.format_percent(held)} of them are within their radius."


def _tabulate_landmarks(numbers: dict) -> str:
    radius = f"{numbers['confidence']['radius_mm']:g} mm"
    held = (numbers.get("region") or {}).get("per_landmark")
    heads = ["landmark", "visible points", "mean error, mm (95 %)", "median", f"within {radius}"]
    heads += ["all points within their radius", "median radius, mm"] if held else []
    rows = []
    for label, one in numbers["per_landmark"].items():
        row = [
            escape_text(label),
            f"{one['n']}",
            page.format_interval(one["d_mean_mm"], one["d_mean_ci_mm"]),
            page.format_number(one["d_median_mm"]),
            page.format_percent_interval(one["within_radius"], one.get("within_radius_ci")),
        ]
        if held:
            row.append(
                page.format_percent_interval(held[label]["within"], held[label]["within_ci"])
            )
            row.append(page.format_number(held[label]["radius_median_mm"]))
        rows.append(row)
    return format_table(heads, rows)


def _render_meaning(source: Source, parts: dict[str, dict]) -> str:
    radius = source.config["evaluation"]["confidence_radius_mm"]
    said = [
        f"*Confidence*: the chance that the point lies within {radius:g} mm of the truth, as it "
        "came out on cases like those it was calibrated on. It is no grade of the scan."
    ]
    region = next(iter(parts.values()), {}).get("region")
    if region and region["all"]:
        share = f"{100 * region['share']:g} %"
        said.append(
            f"*Radius*: {share} of all points of new scans, those that cannot be seen too, are to "
            "lie within their own, in the mean over scans like those that it was fitted to. That "
            "is no promise for one scan, one landmark or another site."
        )
    else:
        said.append("*Radius*: it gives none.")
    if next(iter(parts.values()), {}).get("visibility"):
        said.append(
            "*Chance to be seen*: whether the scan shows the landmark; with less than "
            f"{source.config['aligned']['min_visible']:g} the point is undefined."
        )
    return "\n".join(f"- {sentence}" for sentence in said)


def _render_limits(source: Source) -> str:
    said = [
        "Diagnosis, or any decision about a patient: it is a research program, and no one has "
        "tested it for that."
    ]
    if _is_simulated(source):
        said.append(
            "Real scans: it has seen none, and how good it is on a simulation says nothing of them."
        )
    if source.record.cohort is None:
        said.append("Other ages and sites than those it learned from, which are not on record.")
    else:
        said += _list_cohort_limits(source)
    said += [
        "Faces with malformations, or whatever else its data do not have: it draws what it has "
        "seen towards what is usual.",
        "A point that cannot be seen as if it were a measurement: it is a guess from the rest of "
        "the face.",
        "Points set by other definitions than those above.",
    ]
    return "\n".join(f"- {sentence}" for sentence in said)


def _list_cohort_limits(source: Source) -> list[str]:
    cohorts = list(_list_cohorts(source).values())
    learned = cohorts[0]
    ages, sites = learned["age_weeks"], [site for site in learned["sites"] if site]
    said = []
    if ages is None:
        said.append("Any age as if it were known to work there: the ages of its cases are unknown.")
    else:
        said.append(f"Children younger than {ages[0]:g} or older than {ages[1]:g} weeks.")
    if sites:
        named = ", ".join(map(escape_text, sites))
        said.append(f"Scans of other machines, settings or hands than those of {named}.")
    else:
        said.append("Scans of other machines, settings or hands than those it learned from.")
    return said


def _is_crossval(source: Source) -> bool:
    return "folds" in (source.results or {})


def _is_simulated(source: Source) -> bool:
    results = source.results or {}
    known = results.get("pooled", results).get("truth")  # which only a simulation has
    return source.config["data"]["root"] == "phantom" or known is not None
