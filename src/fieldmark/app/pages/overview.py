"""When and where photos were taken: a calendar of days, and a map of places, without a network."""

from __future__ import annotations

from collections import Counter
from typing import Any

from nicegui import ui

from fieldmark.app import queues, wording
from fieldmark.app.pages.frame import colour, in_thread
from fieldmark.app.store import Project, Role
from fieldmark.utils.languages import number, say, say_count

_YEARS = 6  # the last ones that have photos are shown


def when_and_where(project: Project, role: Role) -> None:
    """Add what opens on demand: the photos by day, and their places where the photos tell them."""

    async def fill(event: Any) -> None:
        box.clear()
        if not event.value:
            return
        axes = (say("longitude"), say("latitude"))  # no thread of its own knows the language
        days, places = queues.days(project, role), queues.places(project, role)
        drawn = await in_thread(_map, places, _title(places), axes) if places else ""
        with box:
            if not days:
                ui.label(say("No photo tells when it was taken.")).classes("fm-dim")
            for year in sorted({day[:4] for day in days})[-_YEARS:]:
                _calendar(year, days)
            if not places:
                ui.label(say("No photo tells where it was taken.")).classes("fm-dim")
            else:
                ui.html(drawn, sanitize=False).classes("fm-map")

    with ui.expansion(say("When and where"), icon="calendar_month", on_value_change=fill).classes(
        "fm-card fm-open"
    ):
        box = ui.column().classes("gap-3 w-full")


def _calendar(year: str, days: dict[str, int]) -> None:
    shown = {day: count for day, count in days.items() if day.startswith(year)}
    months = Counter[str]()
    for day, count in shown.items():
        months[day[:7]] += count
    days_shown = say_count("{count} day", "{count} days", len(shown))
    title = say(
        "{photos} on {days} of {year}", photos=wording.photos(sum(shown.values())), days=days_shown, year=year
    )
    ui.label(title).classes("font-bold")
    ui.label(" · ".join(f"{month}: {number(count)}" for month, count in sorted(months.items()))).classes(
        "fm-dim text-sm"
    )
    ink, line = {":color": colour("ink")}, colour("line")
    options: dict[str, Any] = {
        "aria": {"enabled": True},
        "tooltip": {},
        "visualMap": {
            **{"min": 0, "max": max(shown.values()), "show": False},
            "inRange": {"color": ["#cfe3d8", "#11623f"]},
        },
        "calendar": {
            **{"range": year, "cellSize": ["auto", 14], "left": 40, "right": 8, "top": 24, "bottom": 4},
            **{"dayLabel": ink | {"nameMap": say("S M T W T F S").split()}, "yearLabel": {"show": False}},
            "monthLabel": ink | {"nameMap": month_names()},
            **{"itemStyle": {"color": "transparent", ":borderColor": line}},
            "splitLine": {"lineStyle": {":color": colour("muted")}},
        },
        "series": {"type": "heatmap", "coordinateSystem": "calendar", "data": sorted(shown.items())},
    }
    with ui.element("div").classes("fm-scroll").props("tabindex=0"):
        chart = ui.echart(options).classes("fm-calendar").props("role=img")
        chart.props["aria-label"] = title


def month_names() -> list[str]:
    """Return the short names of the twelve months."""
    return say("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec").split()


def _title(places: list[tuple[float, float, int]]) -> str:
    return say_count(
        "{count} place; a larger dot stands for more photos",
        "{count} places; a larger dot stands for more photos",
        len(places),
    )


def _map(places: list[tuple[float, float, int]], title: str, axes: tuple[str, str]) -> str:
    from fieldmark.reports import plots

    return plots.places("places", title, [(*place, 0.6) for place in places], axes)
