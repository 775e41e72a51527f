"""The languages of the application, the reports and the page of `fieldmark serve`: messages, numbers, shares.

Messages stand in English in the code and in the templates, as the first argument of `say`, `say_count` and
`to_say`. Those of other languages are in `locale/LANGUAGE/LC_MESSAGES/fieldmark.po`, with the file of GNU
gettext beside it that is read; `scripts/messages.py` renews both.
"""

from __future__ import annotations

import gettext
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

LANGUAGES = {"en": "English", "de": "Deutsch", "es": "Español", "fr": "Français", "pt": "Português"}
"""The languages by their codes (ISO 639-1), each called as its speakers do."""
SETTING = "language"
"""The setting of a project with the language that a person chose; "": that of the browser."""
LOCALE, DOMAIN = Path(__file__).parents[1] / "locale", "fieldmark"

_POINTS = {"en": (",", "."), "de": (".", ","), "es": ("\u202f", ","), "fr": ("\u202f", ","), "pt": (".", ",")}
"""What stands between thousands, and before decimals."""
_language: ContextVar[str] = ContextVar("language", default="en")
_of_page: list[Callable[[], str | None]] = []


def speak(language: str) -> None:
    """Use a language from now on in this context; English for one that there is not."""
    _language.set(language if language in LANGUAGES else "en")


@contextmanager
def speaking(language: str) -> Iterator[None]:
    """Use a language for the length of a block; English for one that there is not."""
    before = _language.get()
    speak(language)
    try:
        yield
    finally:
        _language.set(before)


def spoken() -> str:
    """Return the code of the language of the page that asks, else that of this context."""
    return next((found for ask in _of_page if (found := ask())), _language.get())


def ask_page(language: Callable[[], str | None]) -> None:
    """Ask this function first; it returns None where no page asks."""
    _of_page[:] = [language]


def preferred(header: str) -> str:
    """Return the language that a browser prefers, by its header Accept-Language; English without one."""
    wanted: list[tuple[float, str]] = []
    for part in header.replace(" ", "").split(","):
        tag, _, weight = part.partition(";q=")
        try:
            wanted.append((float(weight or 1), tag.lower().split("-")[0]))
        except ValueError:
            continue
    known = [(weight, code) for weight, code in wanted if code in LANGUAGES and weight > 0]
    return max(known, key=lambda each: each[0], default=(1.0, "en"))[1]


def say(message: str, **values: object) -> str:
    """Return a message in the language of this context; whole numbers are written in its way."""
    return _filled(_catalogue(spoken()).gettext(message), values)


def say_count(one: str, many: str, count: int, **values: object) -> str:
    """Return a message of a number, in the form that the language has for it; `{count}` is the number."""
    return _filled(_catalogue(spoken()).ngettext(one, many, count), {"count": count, **values})


def to_say(message: str) -> str:
    """Mark a message for the catalogues that is said later; return it as it is."""
    return message


def number(value: float, digits: int = 0, sign: str = "") -> str:
    """Return a number as it is written in the language of this context; `sign="+"` shows that of any."""
    thousands, point = _POINTS[spoken()]
    return f"{value:{sign},.{digits}f}".translate({ord(","): thousands, ord("."): point})


def decimal_point() -> str:
    """Return what stands before the decimals of a number in the language of this context."""
    return _POINTS[spoken()][1]


def percent(share: float, digits: int = 0, sign: str = "") -> str:
    """Return a share as per cent."""
    return f"{number(100 * share, digits, sign)}\u00a0%"


def _filled(text: str, values: dict[str, object]) -> str:
    shown = {name: number(value) if isinstance(value, int) else value for name, value in values.items()}
    return text.format(**shown) if shown else text


@cache
def _catalogue(language: str) -> gettext.NullTranslations:
    if language == "en":
        return gettext.NullTranslations()
    return gettext.translation(DOMAIN, LOCALE, [language])
