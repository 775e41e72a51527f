"""Lock, address, uvicorn and the end: one application for one project, on this computer alone."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import webbrowser
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from nicegui import ui

from fieldmark.app.access import Access, Speaking
from fieldmark.app.pages import register
from fieldmark.app.routes import add_routes
from fieldmark.app.store import Project
from fieldmark.app.watching import Watcher
from fieldmark.utils import io
from fieldmark.utils.errors import InputError

logger = logging.getLogger(__name__)


def run(folder: Path, *, port: int = 8765, browser: bool = True) -> None:
    """Serve the application until SIGTERM or Ctrl-C; jobs go on.

    Raises:
        StoreError: another application has the project open.
        InputError: the folder cannot be a project, or the port is in use.
    """
    project = Project(folder)
    with io.lock(project.folder / ".app.lock", "another folder", of=folder), _listening(port) as listener:
        number = listener.getsockname()[1]
        access = Access(Speaking(_app(project), project), number)
        address = f"http://127.0.0.1:{number}/?key={access.key}"
        # log_config None: messages of uvicorn below warnings are not shown.
        config = uvicorn.Config(access, log_config=None, access_log=False, timeout_graceful_shutdown=2)
        server = _Server(config, address, browser=browser)
        # uvicorn raises the signal again after its shutdown; that must not fail the process.
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda _number, _frame: None)
        watcher = Watcher(project)
        watcher.start()
        server.run(sockets=[listener])
        watcher.stop()
        project.close()


def _app(project: Project) -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_routes(app, project)
    register(project)
    ui.run_with(
        app,
        title="fieldmark",
        dark=None,
        show_welcome_message=False,
        reconnect_timeout=30,
        favicon="🦋",
        language="en-US",
    )
    return app


class _Server(uvicorn.Server):
    """uvicorn's server, which prints its address and opens the browser when it is ready."""

    def __init__(self, config: uvicorn.Config, address: str, *, browser: bool) -> None:
        super().__init__(config)
        self._address, self._browser = address, browser

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        logger.info(f"The application is ready: {self._address}\n(stop it with Ctrl-C; jobs go on)")
        if self._browser:
            threading.Thread(target=webbrowser.open, args=(self._address,), daemon=True).start()


def _listening(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if os.name == "posix":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(
            f"Port {port} is in use ({error.strerror or error}): name another --port, or 0."
        ) from error
    return listener
