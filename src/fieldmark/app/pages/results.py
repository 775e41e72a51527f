"""Page 7: counts, activity, detection history, and files to take along."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from fieldmark.app import exports, results, wording
from fieldmark.app.activity import Activity
from fieldmark.app.pages.frame import colour, frame, heading
from fieldmark.app.pages.overview import month_names
from fieldmark.app.results import Observation
from fieldmark.app.store import Project
from fieldmark.utils.errors import InputError
from fieldmark.utils.languages import number, say, say_count

_MOST = 20  # species in a plot
_COLOURS = ("series-3", "series-2", "series-1", "series-4", "series-5", "paper", "warn", "muted")


def show(project: Project) -> None:
    """Show the page."""
    page = _Page(project)
    intro = say("What a person said counts first; else the answer of the classifier, where it is sure.")
    with frame(project, "/results", intro, page.body.refresh):
        with ui.row().classes("items-center gap-4"):
            page.persons = ui.switch(say("Only what a person named"), on_change=page.body.refresh)
        page.body()


class _Page:
    persons: ui.switch

    def __init__(self, project: Project) -> None:
        self.project, self.species, self.days = project, "", 7

    @ui.refreshable_method
    def body(self) -> None:
        found = results.observations(self.project, persons_only=bool(self.persons.value))
        counts = results.counts(found)
        if not counts:
            ui.label(say("No photo has a name yet: name or review new photos first.")).classes("fm-card")
            return
        animals = [row[0] for row in results.counts(results.animals(found))]
        self.species = self.species if self.species in animals else (animals or [""])[0]
        self._downloads()
        with ui.element("div").classes("grid grid-cols-1 lg:grid-cols-2 gap-4 w-full"):
            _card(say("Photos of each species"), _bars(counts[:_MOST]))
            head = (say("species"), say("photos"), say("events"), say("named by a person"))
            _table(say("Species"), head, [(wording.species(name), *row) for name, *row in counts])
            for unit, title, labels in (
                ("hour", say("Hours of the day (photos, camera's clock)"), [f"{h:02}" for h in range(24)]),
                ("month", say("Months (photos, camera's clock)"), month_names()),
            ):
                if table := results.by_time(found, unit):
                    _card(title, _stacked(table, labels, animals))
            places = results.by_place(found)
            columns = animals[:_MOST]
            rows = [(place, *(count[name] for name in columns)) for place, count in places.items()]
            _table(say("Places"), (say("place"), *columns), rows)
        self._one_species(found, animals)

    def _downloads(self) -> None:
        with ui.column().classes("fm-card gap-2"):
            heading(2, say("Download"))
            with ui.row().classes("gap-x-6 gap-y-2"):
                for form, (name, about) in exports.FORMATS.items():
                    query = urlencode({"species": self.species, "days": self.days})
                    link = ui.link(say(about), f"/download/{form}?{query}").props(f'download="{name}"')
                    link.classes("fm-download")

    def _one_species(self, found: list[Observation], animals: list[str]) -> None:
        with ui.column().classes("fm-card gap-3"):
            heading(2, say("One species"))
            with ui.row().classes("gap-3"):
                which = ui.select(animals, value=self.species or None, label=say("Species"))
                which.props("outlined dense").classes("w-64").on_value_change(self.set_species)
                days = ui.number(say("Days of an occasion"), value=self.days, min=1, precision=0)
                days.props("outlined dense debounce=600").on_value_change(self.set_days)
            if (active := results.activity_of(found, self.species)) is not None:
                _activity(active)
            self._history(found)

    def _history(self, found: list[Observation]) -> None:
        heading(3, say("Detection history"))
        try:
            table = results.history(found, self.species, self.days)
        except InputError as error:
            ui.label(str(error)).classes("fm-dim")
            return
        ui.label(say("1: seen, 0: not seen, NA: no camera; in brackets the days of effort")).classes("fm-dim")
        rows = [
            (place, *("NA" if d is None else f"{d} ({e})" for d, e in zip(detected, effort, strict=True)))
            for place, detected, effort in zip(table.places, table.detected, table.effort, strict=True)
        ]
        _cells((say("place"), *table.occasions), rows)

    def set_species(self, event: Any) -> None:
        self.species = event.value or ""
        self.body.refresh()

    def set_days(self, event: Any) -> None:
        self.days = max(1, int(event.value or 7))
        self.body.refresh()


def _card(title: str, options: dict[str, Any]) -> None:
    with ui.column().classes("fm-card gap-2"):
        heading(2, title)
        _chart(title, options)


def _chart(title: str, options: dict[str, Any]) -> None:
    chart = ui.echart(options).classes("w-full h-80").props("role=img")
    chart.props["aria-label"] = title


def _activity(active: Activity) -> None:
    """Plot the share of the visits in each hour, with its interval as a band."""
    title = say_count(
        "Activity: the hour in which {count} visit begins, with 95 % intervals",
        "Activity: share of {count} visits that begin in each hour, with 95 % intervals",
        sum(active.visits),
    )
    share, interval = say("share (%)"), say("95 % interval")
    percent = [[round(100 * end, 2) for end in pair] for pair in active.intervals]
    band = {"type": "line", "stack": "interval", "step": "middle", "symbol": "none", "silent": True}
    band |= {"lineStyle": {"opacity": 0}, "tooltip": {"show": False}, ":color": colour(_COLOURS[0])}
    series: list[dict[str, Any]] = [
        {"name": share, "type": "bar", "data": [round(100 * each, 2) for each in active.shares]},
        band | {"name": "low", "data": [low for low, _ in percent]},
        band
        | {"name": interval, "data": [round(high - low, 2) for low, high in percent]}
        | {"areaStyle": {"opacity": 0.25}},
    ]
    options = _plot(series) | {
        "xAxis": _axis("category", data=[f"{hour:02}" for hour in range(24)]),
        "yAxis": _axis("value", unit=" %"),
    }
    options["legend"] |= {"data": [share, interval]}
    heading(3, say("Activity"))
    ui.label(title)
    _chart(title, options)
    ui.label(
        say("Photos of the species at one place are one visit until half an hour has passed without one.")
    ).classes("fm-dim text-sm")


def _table(title: str, columns: tuple[str, ...], rows: list[Any]) -> None:
    with ui.column().classes("fm-card gap-2"):
        heading(2, title)
        _cells(columns, rows)


def _cells(columns: tuple[str, ...], rows: list[Any]) -> None:
    """Show a table; names of species and places come from anyone, so that cells are text."""
    with ui.element("div").classes("fm-scroll").props("tabindex=0"), ui.element("table").classes("fm-table"):
        with ui.element("thead"), ui.element("tr"):
            for name in columns:
                with ui.element("th").props("scope=col"):
                    ui.label(name)
        with ui.element("tbody"):
            for row in rows:
                with ui.element("tr"):
                    for value in row:
                        with ui.element("td").classes("n" if isinstance(value, int) else ""):
                            ui.label(number(value) if isinstance(value, int) else str(value))


def _bars(counts: list[tuple[str, int, int, int]]) -> dict[str, Any]:
    names = [wording.species(row[0]) for row in reversed(counts)]
    series = [
        {"name": say("by the classifier"), "data": [row[1] - row[3] for row in reversed(counts)]},
        {"name": say("by a person"), "data": [row[3] for row in reversed(counts)]},
    ]
    axes = {"yAxis": _axis("category", data=names), "xAxis": _axis("value", minInterval=1)}
    return _plot([each | {"type": "bar", "stack": "all"} for each in series]) | axes


def _stacked(table: dict[str, list[int]], labels: list[str], animals: list[str]) -> dict[str, Any]:
    shown = [name for name in animals if name in table][: len(_COLOURS)]
    series = [{"name": name, "type": "bar", "stack": "all", "data": table[name]} for name in shown]
    return _plot(series) | {"xAxis": _axis("category", data=labels), "yAxis": _axis("value", minInterval=1)}


def _axis(kind: str, unit: str = "", **more: Any) -> dict[str, Any]:
    label, line = {":color": colour("ink")}, {"lineStyle": {":color": colour("line")}}
    label |= {"formatter": f"{{value}}{unit}"} if unit else {}
    lines = {"axisLine": line} | ({"splitLine": line} if kind == "value" else {})
    return {"type": kind, "axisLabel": label, **lines, **more}


def _plot(series: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        ":color": f"[{', '.join(map(colour, _COLOURS))}]",
        "aria": {"enabled": True},
        "tooltip": {"trigger": "axis"},
        "legend": {"textStyle": {":color": colour("ink")}, "type": "scroll", "bottom": 0},
        "grid": {"left": 8, "right": 16, "top": 16, "bottom": 40, "containLabel": True},
        "series": series,
    }
