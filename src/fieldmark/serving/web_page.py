"""The web page in the language of its reader: the template, and what its script says."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.templating import Jinja2Templates

from fieldmark.reports.page import say_safely
from fieldmark.serving.asked import PRIOR_REASONS
from fieldmark.serving.http_errors import SENTENCES
from fieldmark.utils.languages import preferred, say, speaking, spoken
from fieldmark.utils.wording import RANKS

_templates = Jinja2Templates(Path(__file__).parent / "templates")
_templates.env.globals |= {"say": say_safely, "language": spoken}
_SCRIPT = Path(__file__).parent / "static" / "app.js"
_SAID = re.compile(r'\bsay(?:With)?\("([^"]+)"')


def answer(request: Request) -> Response:
    """Return the page in the language that the browser prefers, or 304 where the browser has it already."""
    language = preferred(request.headers.get("accept-language", ""))
    text, tag = _page(language)
    headers = {"ETag": tag, "Vary": "Accept-Language", "Content-Language": language}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(text, media_type="text/html", headers=headers)


@cache
def _page(language: str) -> tuple[str, str]:
    """Return the page in a language, and its entity tag."""
    with speaking(language):
        text = _templates.get_template("index.html").render(words=_words())
    return text, f'"{sha256(text.encode()).hexdigest()[:32]}"'


def _words() -> dict[str, str]:
    """Return what the script says, and sentences of the API, by the English text."""
    texts = _SAID.findall(_SCRIPT.read_text(encoding="utf-8"))
    return {each: say(each) for each in (*texts, *RANKS.values(), *SENTENCES, *PRIOR_REASONS)}
