"""Whether a server answers, found out quickly on machines without a connection."""

from __future__ import annotations

import threading
from contextlib import suppress

from fieldmark.models.architecture import HUB

ANSWER_WITHIN = 4.0  # seconds until a server is considered unreachable


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE says that the hub is not to be asked, but its cache alone."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def is_reachable(url: str) -> bool:
    """Return whether the server of a URL answers within a few seconds, if only with a refusal.

    It is asked in a thread, since resolving a name has no time-out.
    """
    import urllib.request  # it imports TLS: not at the start of every command
    from urllib.error import HTTPError

    if url.startswith(HUB) and is_offline():
        return False
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        with suppress(OSError, ValueError):
            with suppress(HTTPError), urllib.request.urlopen(request, timeout=ANSWER_WITHIN):
                pass
            answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_WITHIN)
    return answered.is_set()
