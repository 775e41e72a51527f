"""Templates of the pages, and the formats of numbers in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from fieldmark.data.taxonomy import Taxonomy
from fieldmark.utils import languages
from fieldmark.utils.languages import decimal_point, number, say, say_count, spoken
from fieldmark.utils.logging import format_duration
from fieldmark.utils.wording import word

if TYPE_CHECKING:
    from jinja2 import Environment

NOTHING = "–"


def render(template: str, **context: Any) -> str:
    """Render a template of `reports/templates` as one HTML text that needs no other file.

    It is in the language of this context, see `fieldmark.utils.languages`.
    """
    return _environment(spoken()).get_template(template).render(**context)


def count(value: float | None) -> str:
    """Format a whole number: 268,243."""
    return NOTHING if value is None else number(value)


def photos(value: int) -> str:
    """Format a number of photos: 1 photo, 268,243 photos."""
    return say_count("{count} photo", "{count} photos", value)


def decimal(value: float | None, places: int = 3) -> str:
    """Format a number with a fixed number of decimals."""
    return NOTHING if value is None else number(value, places)


def exact(value: object) -> str:
    """Format a number with the decimals that it has, and a text as it is."""
    return str(value).replace(".", decimal_point()) if isinstance(value, float) else str(value)


def interval(value: Sequence[float] | None, places: int = 3) -> str:
    """Format an interval: 0.210 to 0.251."""
    return NOTHING if value is None else _range(number(value[0], places), number(value[1], places))


def percent(value: float | None) -> str:
    """Format a share in per cent: 77.4 %."""
    return NOTHING if value is None else f"{number(100 * value, 1)} %"


def percents(value: Sequence[float] | None) -> str:
    """Format an interval in per cent: 21.0 to 25.1 %."""
    return NOTHING if value is None else f"{_range(*(number(100 * each, 1) for each in value))} %"


def right(error: float) -> str:
    """Format an error as the share of right answers: 77.4 %; no error is rounded away."""
    found = round(100 * (1 - error), 1)
    if found == 100 and error > 0:
        return say("more than {share}", share=languages.percent(0.999, 1))
    if found == 0 and error < 1:
        return say("less than {share}", share=languages.percent(0.001, 1))
    return f"{number(found, 1)}\u00a0%"


def right_interval(value: Sequence[float]) -> str:
    """Format the interval of an error as that of right answers: 75.1 to 79.0 %."""
    return f"{_range(number(100 * (1 - value[1]), 1), number(100 * (1 - value[0]), 1))}\u00a0%"


def seconds(value: float | None) -> str:
    """Format a duration: 3 min 20 s."""
    return NOTHING if value is None else format_duration(value).replace(".", decimal_point())


def signed(value: float | None, places: int = 3) -> str:
    """Format a difference with its sign."""
    if value is None:
        return NOTHING
    rounded = round(value, places)
    return number(rounded, places, "+").replace("-", "−") if rounded else number(0, places)


def signed_interval(value: Sequence[float], places: int = 3) -> str:
    """Format an interval of a difference: −0.021 to +0.005."""
    return _range(signed(value[0], places), signed(value[1], places))


def label(taxonomy: Taxonomy, taxon_id: str) -> str:
    """Return the name of a taxon; its id if it is not in the taxonomy."""
    return taxonomy[taxon_id].label if taxon_id in taxonomy else taxon_id


def _range(low: str, high: str) -> str:
    return say("{low} to {high}", low=low, high=high)


def say_safely(message: str, **values: object) -> Markup:
    """Say a message that may have elements of HTML, with values as text."""
    return Markup(say(message, **_escaped(values)))


def say_count_safely(one: str, many: str, count: int, **values: object) -> Markup:
    """Say a message of a number as `say_safely` does."""
    return Markup(say_count(one, many, count, **_escaped(values)))


def _escaped(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value if isinstance(value, int) else escape(value) for name, value in values.items()}


@cache
def _environment(language: str) -> Environment:
    """The environment of one language: filters of constants are computed when a template is compiled."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

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
    formats = (count, photos, decimal, exact, interval, percent, percents, signed, signed_interval, word)
    environment.filters |= {each.__name__: each for each in formats} | {"duration": seconds}
    environment.filters["sections"] = re.compile(r'<section id="([^"]+)">\s*<h2>(.*?)</h2>').findall
    environment.globals |= {"say": say_safely, "say_count": say_count_safely, "language": language}
    # Style and script are trusted: they are not escaped.
    environment.globals |= {
        "style": Markup(text("theme.css") + text("style.css")),
        "sort": Markup(text("sort.js")),
    }
    environment.globals["matrix_script"] = Markup(text("matrix.js"))
    return environment
