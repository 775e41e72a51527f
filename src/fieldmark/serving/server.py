"""The socket, uvicorn, and a shutdown that finishes what was begun."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
import sys
from types import FrameType

import uvicorn

from fieldmark.inference.classifier import Classifier
from fieldmark.serving.app import create_app
from fieldmark.serving.config import ServeConfig
from fieldmark.serving.middleware import JsonLines
from fieldmark.serving.model import Model
from fieldmark.utils.errors import FieldmarkError, InputError

logger = logging.getLogger(__name__)

_BACKLOG = 1024
_CONNECTIONS = 1024
_HEAD_BYTES = 32 * 1024


def run(classifier: Classifier, config: ServeConfig) -> None:
    """Serve until SIGTERM or Ctrl-C; then answer what has been accepted, and return.

    Raises:
        InputError: the address cannot be listened on, or the classifier cannot be run here.
        FieldmarkError: the processes for decoding do not start.
    """
    with _listening(config) as listener:
        Model(classifier).warm_up()
        _log_to_stderr()
        port = listener.getsockname()[1]
        server = _Server(_uvicorn(classifier, config), _place(config.host, port))
        # uvicorn raises the signal again once it has shut down: that is the end, not a death.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _ended)
        server.run(sockets=[listener])
        if not server.started:
            raise FieldmarkError("The server did not start; the line above says why.")


class _Server(uvicorn.Server):
    """uvicorn's, which says when it is there."""

    def __init__(self, config: uvicorn.Config, place: str) -> None:
        super().__init__(config)
        self._place = place

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            logger.info(f"Serving on {self._place}  (Ctrl-C ends it)")


def _uvicorn(classifier: Classifier, config: ServeConfig) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(classifier, config),
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        http="h11",  # keeps a limit on a request's head, which httptools does not
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=config.drain_seconds,
        h11_max_incomplete_event_size=_HEAD_BYTES,
    )


def _listening(config: ServeConfig) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: nobody may listen there, or somebody already does.
    """
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(
            f"{config.host}:{config.port} cannot be listened on ({why}): "
            "name another --port or --host."
        ) from error
    if not config.keys and not _loopback(config.host):
        logger.info(
            f"Note: everybody who can reach {config.host} may use this server; "
            "--api-key-file asks them for a key."
        )
    return listener


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _place(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("fieldmark.serving", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def _ended(_number: int, _frame: FrameType | None) -> None:
    """What is left to do about the signal that ended the server: nothing."""
