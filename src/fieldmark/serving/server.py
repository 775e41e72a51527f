"""Socket, uvicorn and graceful shutdown."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from contextlib import suppress

import uvicorn

from fieldmark.inference.classifier import Classifier
from fieldmark.serving import model
from fieldmark.serving.app import create_app
from fieldmark.serving.config import ServeConfig
from fieldmark.serving.connection import RESERVE, limited
from fieldmark.serving.middleware import HEAD_BYTES, JsonLines
from fieldmark.utils.errors import FieldmarkError, InputError

# Plain text for people: the lines of the logger "fieldmark.serving" and below it are JSON.
logger = logging.getLogger("fieldmark.server")

_BACKLOG = 1024


def run(classifier: Classifier, config: ServeConfig) -> None:
    """Serve until SIGTERM or Ctrl-C; then finish the accepted requests and return.

    Raises:
        InputError: The address is not available, or the classifier cannot run on this machine.
        FieldmarkError: The decoding processes do not start.
    """
    with _listening(config) as listener:
        _allow_files(config.connections + 2 * RESERVE + config.workers * 8)
        model.warm_up(classifier)
        _log_to_stderr()
        host = f"[{config.host}]" if ":" in config.host else config.host
        server = _Server(_uvicorn(classifier, config), f"http://{host}:{listener.getsockname()[1]}")
        # uvicorn raises the signal again after its shutdown; that must not fail the process.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: None)
        server.run(sockets=[listener])
        if not server.started:
            raise FieldmarkError("The server did not start: see the log line above.")


class _Server(uvicorn.Server):
    """uvicorn's server, which logs its address when it is ready."""

    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            logger.info(f"Serving on {self._url}  (stop with Ctrl-C)")


def _uvicorn(classifier: Classifier, config: ServeConfig) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(classifier, config),
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        http=limited(config),
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=config.drain_seconds,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )


def _listening(config: ServeConfig) -> socket.socket:
    """Open a listening socket; raises InputError where the address is in use or not permitted."""
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
            f"Cannot listen on {config.host}:{config.port} ({why}): name another --port or --host."
        ) from error
    if not config.keys and not config.loopback:
        logger.info(
            f"Note: anyone who can reach {config.host} can use this server; "
            "--api-key-file requires an API key."
        )
    return listener


def _allow_files(count: int) -> None:
    """Let the process have as many files open as it may have connections, where the system allows it."""
    with suppress(ImportError, OSError, ValueError):  # ImportError: Windows, which has no such limit
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = count if hard == resource.RLIM_INFINITY else min(count, hard)
        if soft != resource.RLIM_INFINITY and soft < most:
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("fieldmark.serving", logging.INFO), ("uvicorn", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
