"""A folder that is watched: a camera card, or one that a program copies photos to.

It is looked at every few seconds, since systems tell of changes on cards and network drives in different
ways, or not at all. A file counts once it was the same in two looks: cameras and programs write slowly.
"""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from fieldmark.app import jobs, learning, outcomes
from fieldmark.app.store import Project, stored
from fieldmark.inference import inputs
from fieldmark.inference.inputs import InputPhoto
from fieldmark.utils.errors import FieldmarkError, InputError

logger = logging.getLogger(__name__)

SETTING = "watched"
"""The setting with the folder that is watched; "": none."""
_EVERY = 5.0  # seconds between two looks
_REST = 10  # times as long as a look took, at least, nothing is done: large folders take long

Stamp = tuple[int, int]


class Watcher:
    """Looks for new photos in the watched folder of a project, and lets the classifier name them."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._seen: dict[Path, Stamp] = {}  # size and time of change of files in the last look
        self._waits = False  # whether photos came that no job has begun to name
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watching", daemon=True)

    def start(self) -> None:
        """Look every few seconds, until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """End after the look that goes on now."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        rest = _EVERY
        while not self._end.wait(rest):
            began = time.monotonic()
            try:
                self.look()
            except FieldmarkError as error:
                logger.warning(str(error))
            except OSError as error:  # a card that was pulled out
                logger.warning(f"The watched folder could not be read ({error.strerror or error}).")
            rest = max(_EVERY, _REST * (time.monotonic() - began))

    def look(self) -> int:
        """Add photos that are new and whole, and name what waits; return how many were added."""
        folder = self.project.setting(SETTING)
        if not folder:
            self._seen = {}
            return 0
        outcomes.take_over(self.project)  # no page may be open
        added = self._add(Path(folder))
        if self._waits and not jobs.running(self.project.folder) and learning.classifier_of(self.project):
            self._waits = False
            learning.name(self.project)
        return added

    def _add(self, folder: Path) -> int:
        try:
            found = inputs.find_photos([folder])
        except InputError:  # it holds no photo now, or the card is not there
            found = []
        before, self._seen = self._seen, {}
        known = {row[0] for row in self.project.rows("SELECT path FROM photos")}
        whole: list[InputPhoto] = []
        for photo in found:
            path = photo.path
            if not isinstance(path, Path) or (stamp := _stamp(path)) is None:
                continue
            self._seen[path] = stamp
            if stored(path) not in known:
                if before.get(path) == stamp:
                    whole.append(photo)
            elif path in before and before[path] != stamp:
                self._waits = True  # its writer had paused: photos that were refused are tried again
        added = self.project.add_new(whole, folder) if whole else 0
        self._waits |= added > 0
        return added


def _stamp(path: Path) -> Stamp | None:
    """Return size and time of change of a file that is not empty."""
    try:
        about = path.stat()
    except OSError:
        return None
    return (about.st_size, about.st_mtime_ns) if about.st_size else None
