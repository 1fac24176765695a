"""The part of a report on radii: do they hold the truth as often as they say?"""

from collections.abc import Mapping
from html import escape

from fetal_jax.report import captions, page
from fetal_jax.report.charts import Chart
from fetal_jax.report.page import Section


def show_region(numbers: Mapping[str, dict]) -> tuple[Section | None, Chart | None]:
    """The section and its chart; None of a run without radii, or of which nothing is tested.

    Args:
      numbers: title -> of `summary.summarise_parts`, the first being the one that counts.
    """
    regions = {title: one["region"] for title, one in numbers.items() if one.get("region")}
    tested = {title: one for title, one in regions.items() if one["all"] and one["all"]["n"]}
    if not regions:
        return None, None
    chart = captions.draw_coverage(tested) if tested else None
    return tabulate_region(tested or regions, chart), chart


def tabulate_region(regions: Mapping[str, dict], chart: Chart | None) -> Section:
    """Whether the radii hold the truth as often as they say.

    Args:
      regions: title -> numbers of `region.summarise_region`.
      chart: of `captions.draw_coverage`; None where no radius was given.
    """
    first = next(iter(regions.values()))
    heading = f"A radius that is to hold {100 * first['share']:g} %"
    if chart is None:
        return Section("region", heading, page.render_paragraph(_explain_no_radius(first)))
    kinds = {"all": "all points", "visible": "visible", "completed": "cannot be seen"}
    rows = [
        _list_coverage(f"{title}, {words}", region[kind])
        for title, region in regions.items()
        for kind, words in kinds.items()
        if region["all"] and region[kind]["n"]
    ]
    heads = ["", "n", "within their radius (95 %)", "median radius, mm"]
    caption = (
        "Each point has a radius of its own, by its landmark and by how sure the network is of it; "
        "it was fitted to errors on other cases, so that the truth is to lie within it for this "
        "share of all points of new scans. The interval is Wilson's over subjects."
    )
    body = page.render_table(heads, rows, caption=escape(caption), anchor="region-table")
    body += page.render_figure(chart.to_inline(chart.caption), chart.caption)
    rows = [_list_coverage(label, row) for label, row in first["per_landmark"].items() if row["n"]]
    title = escape(f"{next(iter(regions))}: all points of each landmark.")
    body += page.render_table(heads, rows, caption=title, anchor="region-landmarks", sortable=True)
    return Section("region", heading, body)


def _list_coverage(name: str, row: dict) -> list[str]:
    held = page.format_percent_interval(row["within"], row["within_ci"])
    return [name, f"{row['n']}", held, page.format_number(row["radius_median_mm"])]


def _explain_no_radius(region: dict) -> str:
    if region["all"] is None:
        return (
            "No point has one: too few subjects say how far points are off, of the validation "
            "cases or, in a cross-validation, of the other folds. "
            f"{region['enough_subjects']} are enough: config.data.validation_share has more."
        )
    return "No point of these cases could test it."
