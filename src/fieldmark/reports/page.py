"""Templates of the pages, and the formats of numbers in them."""

from __future__ import annotations

import re
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
    """Render a template of `reports/templates` as one HTML text that needs no other file."""
    return _environment().get_template(template).render(**context)


def count(value: float | None) -> str:
    """Format a whole number: 268,243."""
    return NOTHING if value is None else f"{value:,.0f}"


def plural(value: float, one: str, many: str | None = None) -> str:
    """Format a number with its noun: 1 photo, 268,243 photos."""
    return f"{count(value)} {one if value == 1 else many or one + 's'}"


def decimal(value: float | None, places: int = 3) -> str:
    """Format a number with a fixed number of decimals."""
    return NOTHING if value is None else f"{value:,.{places}f}"


def interval(value: Sequence[float] | None, places: int = 3) -> str:
    """Format an interval: 0.210 to 0.251."""
    return NOTHING if value is None else f"{value[0]:.{places}f} to {value[1]:.{places}f}"


def percent(value: float | None) -> str:
    """Format a share in per cent: 77.4 %."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def percents(value: Sequence[float] | None) -> str:
    """Format an interval in per cent: 21.0 to 25.1 %."""
    return NOTHING if value is None else f"{100 * value[0]:.1f} to {100 * value[1]:.1f} %"


def right(error: float) -> str:
    """Format an error as the share of right answers: 77.4 %; no error is rounded away."""
    found = round(100 * (1 - error), 1)
    if found == 100 and error > 0:
        return "more than 99.9\u00a0%"
    if found == 0 and error < 1:
        return "less than 0.1\u00a0%"
    return f"{found:.1f}\u00a0%"


def right_interval(value: Sequence[float]) -> str:
    """Format the interval of an error as that of right answers: 75.1 to 79.0 %."""
    return f"{100 * (1 - value[1]):.1f} to {100 * (1 - value[0]):.1f}\u00a0%"


def seconds(value: float | None) -> str:
    """Format a duration: 3 min 20 s."""
    return NOTHING if value is None else format_duration(value)


def signed(value: float | None, places: int = 3) -> str:
    """Format a difference with its sign."""
    if value is None:
        return NOTHING
    rounded = round(value, places)
    return f"{rounded:+.{places}f}".replace("-", "−") if rounded else f"{0:.{places}f}"


def label(taxonomy: Taxonomy, taxon_id: str) -> str:
    """Return the name of a taxon; its id if it is not in the taxonomy."""
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
    formats = (count, plural, decimal, interval, percent, percents, signed)
    environment.filters |= {each.__name__: each for each in formats} | {"duration": seconds}
    environment.filters["sections"] = re.compile(r'<section id="([^"]+)">\s*<h2>(.*?)</h2>').findall
    # Style and script are trusted: they are not escaped.
    environment.globals |= {
        "style": Markup(text("theme.css") + text("style.css")),
        "sort": Markup(text("sort.js")),
    }
    environment.globals["matrix_script"] = Markup(text("matrix.js"))
    return environment
