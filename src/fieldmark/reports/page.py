"""What both pages share: the templates, and how numbers are written for a person."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from fieldmark.data.taxonomy import Taxonomy
from fieldmark.utils.logging import format_duration

if TYPE_CHECKING:
    from jinja2 import Environment

NOTHING = "–"


def render(template: str, **context: Any) -> str:
    """A page from a template of `report/templates`: one HTML file that needs no other."""
    return _environment().get_template(template).render(**context)


def count(value: float | None) -> str:
    """A whole number with thousands apart: 268,243."""
    return NOTHING if value is None else f"{value:,.0f}"


def decimal(value: float | None, places: int = 3) -> str:
    """A number with a fixed number of decimals."""
    return NOTHING if value is None else f"{value:,.{places}f}"


def interval(value: Sequence[float] | None, places: int = 3) -> str:
    """An interval: 0.210 to 0.251."""
    return NOTHING if value is None else f"{value[0]:.{places}f} to {value[1]:.{places}f}"


def percent(value: float | None) -> str:
    """A share in per cent: 77.4 %."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def of_100(error: float) -> str:
    """How many of 100 photos are named right, from an error: 77 of 100."""
    right = round(100 * (1 - error))
    if right == 100 and error > 0:
        return "more than 99 of 100"
    if right == 0 and error < 1:
        return "fewer than 1 of 100"
    return f"{right} of 100"


def of_100_interval(value: Sequence[float]) -> str:
    """The interval of `of_100`, from an error's: 75 to 79."""
    return f"{round(100 * (1 - value[1]))} to {round(100 * (1 - value[0]))}"


def seconds(value: float | None) -> str:
    """A duration: 3 min 20 s."""
    return NOTHING if value is None else format_duration(value)


def signed(value: float | None, places: int = 3) -> str:
    """A difference with its sign."""
    if value is None:
        return NOTHING
    rounded = round(value, places)
    return f"{rounded:+.{places}f}".replace("-", "−") if rounded else f"{0:.{places}f}"


def label(taxonomy: Taxonomy, taxon_id: str) -> str:
    """The name of a taxon for a person; its id where the taxonomy does not know it."""
    return taxonomy[taxon_id].label if taxon_id in taxonomy else taxon_id


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    folder = resources.files("fieldmark.reports") / "templates"

    def text(name: str) -> str:
        return (folder / name).read_text(encoding="utf-8")

    environment = Environment(
        loader=FunctionLoader(text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "decimal": decimal,
        "interval": interval,
        "percent": percent,
        "duration": seconds,
        "signed": signed,
    }
    # The style and the script are ours, and go into the page as they are.
    environment.globals |= {"style": Markup(text("style.css")), "sort": Markup(text("sort.js"))}
    return environment
