"""The wall of photos: an element that shows only what is on the screen of many thousand photos."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from fieldmark.app import wording
from fieldmark.app.pages.frame import STATIC
from fieldmark.app.queues import Wall
from fieldmark.app.routes import walls
from fieldmark.utils.languages import say


@dataclass(frozen=True)
class Act:
    """What a person does with photos of a wall.

    Attributes:
        act: `accept`, `unknown`, `blank`, `number1` to `number5`, `call`, `zoom`, `undo` or `redo`.
        name: of `call`, the name that is typed.
        ids: the photos that it is for: those that are chosen, else the one in focus.
        focus: the photo in focus.
    """

    act: str
    name: str
    ids: list[int]
    focus: int | None


class PhotoWall(ui.element, component=STATIC / "wall.js"):
    """Photos in groups, with a focus and a choice of several.

    Args:
        label: what it shows, for screen readers.
        on_look: called with the photo in focus (or None) and those that are chosen, when they change.
        on_act: called with an `Act` by keys, or by `act`; None: keys do nothing.
        drag: whether photos can be dragged.
        field: CSS selector of the input for another name: a key focuses it, and its Enter is an action.
        none: what stands in its place without photos.
    """

    def __init__(
        self,
        label: str,
        on_look: Callable[[int | None, list[int]], None],
        on_act: Callable[[Act], None] | None = None,
        *,
        drag: bool = False,
        field: str = "",
        none: str = "",
    ) -> None:
        super().__init__()
        self._key = secrets.token_hex(8)
        none = none or say("Nothing is left here.")
        self._props |= {"label": label, "acts": on_act is not None, "drag": drag, "none": none}
        self._props["words"] = {
            "all": say("Select all"),
            "all_of": say("Select all of {group}"),
            "not_named": wording.species(wording.NOT_NAMED),
        }
        self._props |= {"field": field, "wall": "", "total": 0, "brightness": 1, "side_wanted": 168}
        self.on("look", lambda event: on_look(event.args["id"], event.args["chosen"]))
        if on_act is not None:
            self.on("act", lambda event: on_act(_act(event.args)))
        self.client.on_delete(lambda: walls.pop(self._key, None))

    def show(self, wall: Wall) -> None:
        """Show other photos, from the top."""
        walls.pop(self._key, None)
        self._key = secrets.token_hex(8)
        walls[self._key] = wall
        self._props |= {"wall": self._key, "total": len(wall.ids)}
        self.update()

    def fresh(self) -> None:
        """Read the photos that are shown again: their names have changed."""
        self.run_method("fresh")

    def choose(self, ids: list[int]) -> None:
        """Choose these photos, and no other ones."""
        self.run_method("choose", ids)

    def act(self, act: str, name: str = "") -> str:
        """Return a click's handler in the page that does what a key of this action does."""
        return f"() => getElement({self.id}).act({json.dumps(act)}, {json.dumps(name)})"

    def set_look(self, *, brightness: float | None = None, side: int | None = None) -> None:
        """Change the brightness (1: as it is) or the side of a photo in pixels."""
        self._props |= {} if brightness is None else {"brightness": brightness}
        self._props |= {} if side is None else {"side_wanted": side}
        self.update()


def _act(args: dict[str, Any]) -> Act:
    return Act(args["act"], args["name"], [int(each) for each in args["ids"] if each], args["focus"])
