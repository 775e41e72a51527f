"""Page 5: the photos whose labels would help the classifier most, a few at a time."""

from __future__ import annotations

from nicegui import ui

from fieldmark.app import suggestions
from fieldmark.app.pages.frame import frame
from fieldmark.app.pages.review import Review
from fieldmark.app.queues import Group, Wall
from fieldmark.app.store import Project
from fieldmark.utils.languages import say, say_count


def show(project: Project) -> None:
    """Show the page."""
    page = _Next(project)
    intro = say("The photos that the classifier doubts most. Label these 20, and let it learn again.")
    with frame(project, "/next", intro, page.again):
        page.build()
        page.refresh()


class _Next(Review):
    """The page Review with the photos to label next in its wall."""

    def build(self) -> None:
        with ui.row().classes("items-center gap-3 w-full"):
            ui.button(say("Another 20"), icon="refresh", on_click=self.refresh)
            ui.link(say("Learn again"), "/learn")
            self.said = ui.label().classes("fm-dim").props('role="status"')
        self.columns()

    def wanted(self) -> Wall:
        self.ids = suggestions.suggest(self.project)
        return Wall(self.ids, (Group(say("To label next"), len(self.ids)),) if self.ids else ())

    def again(self) -> None:
        """Show the same photos, as they are now."""
        self.wall.fresh()
        self.say()

    def say(self) -> None:
        states = [each.state for each in self.project.photos(self.ids)]
        done = sum(state in ("person", "unknown") for state in states)
        self.said.text = (
            say_count("{done} of {count} labelled", "{done} of {count} labelled", len(states), done=done)
            if states
            else say("No photo with an answer waits for a label: name new photos first.")
        )
