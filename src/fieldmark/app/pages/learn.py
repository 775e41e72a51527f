"""Page 6: the labels of people go to the classifier, and what that changed."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from fieldmark.app import learning
from fieldmark.app.jobs import Job
from fieldmark.app.pages.frame import frame, heading, job_panel, saying_errors
from fieldmark.app.pages.train import report
from fieldmark.app.store import Project
from fieldmark.utils.languages import percent, say, say_count


def show(project: Project) -> None:
    """Show the page."""
    intro = say(
        "The classifier learns from what people labelled and corrected. Its own answers teach it nothing."
    )
    with frame(project, "/learn", intro, lambda: state.refresh(project)):
        with ui.column().classes("fm-card gap-3"):
            state(project)

            def start() -> None:
                with saying_errors():
                    learning.learn_again(project)
                    said = say("Learning has started. You may close this page; it goes on.")
                    ui.notify(said, type="positive")

            ui.button(say("Learn again"), icon="model_training", on_click=start).props("size=lg")

        def done(job: Job) -> None:
            state.refresh(project)
            changes.refresh(project)
            report.refresh(project)
            if job.state == "done":
                ui.notify(say("The new classifier is ready."), type="positive")

        job_panel(project, ("grow", "train"), done)
        changes(project)
        report(project)


@ui.refreshable
def state(project: Project) -> None:
    """Show how many labels are waiting."""
    found = learning.labels(project)
    new = say_count(
        "{count} label of a photo that it has not learned from",
        "{count} labels of photos that it has not learned from",
        found.new,
    )
    corrected = say_count("{count} corrected label", "{count} corrected labels", found.corrected)
    ui.label(f"{new}, {corrected}")
    if found.withdrawn:
        ui.label(
            say_count(
                "{count} label was withdrawn: only training anew, on the page Train, forgets it.",
                "{count} labels were withdrawn: only training anew, on the page Train, forgets them.",
                found.withdrawn,
            )
        ).classes("fm-dim")


@ui.refreshable
def changes(project: Project) -> None:
    """Show the errors before and after."""
    grown = learning.grown(project)
    photos, right = learning.agreement(project)
    if not grown and not photos:
        return
    with ui.column().classes("fm-card gap-2"):
        heading(2, say("Before and after"))
        for line in _lines(grown, photos, right):
            ui.label(line)
        if grown:
            ui.link(say("Name all new photos again with the new classifier"), "/name")


def _lines(grown: dict[str, Any], photos: int, right: int) -> list[str]:
    lines = []
    if old := grown.get("old_photos"):
        low, high = old["interval"]
        verdict = say("a tie") if old["tie"] else say("worse") if old["difference"] > 0 else say("better")
        lines.append(
            say(
                "Photos that it knew, each measured without having been learned from: error {before} before, "
                "{now} now; difference {difference} (95 % CI {low} to {high}): {verdict}.",
                before=percent(old["error_before"], 1),
                now=percent(old["error"], 1),
                difference=percent(old["difference"], 1, "+"),
                low=percent(low, 1, "+"),
                high=percent(high, 1, "+"),
                verdict=verdict,
            )
        )
    if new := grown.get("new_photos"):
        low, high = new["interval"]
        lines.append(
            say_count(
                "The {count} newly labelled photo, measured in the same way: error {now} now "
                "(95 % CI {low} to {high}).",
                "The {count} newly labelled photos, measured in the same way: error {now} now "
                "(95 % CI {low} to {high}).",
                new["photos"],
                now=percent(new["error"], 1),
                low=percent(low, 1),
                high=percent(high, 1),
            )
        )
    if photos:
        lines.append(
            say_count(
                "Before, {wrong} of {count} first answer on new photos differed from what people said "
                "({share}). Where doubtful photos were reviewed first this is more than on all photos.",
                "Before, {wrong} of {count} first answers on new photos differed from what people said "
                "({share}). Where doubtful photos were reviewed first this is more than on all photos.",
                photos,
                wrong=photos - right,
                share=percent(1 - right / photos, 1),
            )
        )
    return lines
