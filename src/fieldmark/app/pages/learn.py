"""Page 6: the labels of people go to the classifier, and what that changed."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from fieldmark.app import learning
from fieldmark.app.jobs import Job
from fieldmark.app.pages.frame import frame, job_panel, saying_errors
from fieldmark.app.pages.train import report
from fieldmark.app.store import Project


def show(project: Project) -> None:
    """Show the page."""
    intro = "The classifier learns from what people labelled and corrected. Its own answers teach it nothing."
    with frame(project, "/learn", intro, lambda: state.refresh(project)):
        with ui.column().classes("fm-card gap-3"):
            state(project)

            def start() -> None:
                with saying_errors():
                    learning.learn_again(project)
                    ui.notify("Learning has started. You may close this page; it goes on.", type="positive")

            ui.button("Learn again", icon="model_training", on_click=start).props("size=lg")

        def done(job: Job) -> None:
            state.refresh(project)
            changes.refresh(project)
            report.refresh(project)
            if job.state == "done":
                ui.notify("The new classifier is ready.", type="positive")

        job_panel(project, ("grow", "train"), done)
        changes(project)
        report(project)


@ui.refreshable
def state(project: Project) -> None:
    """Show how many labels are waiting."""
    found = learning.labels(project)
    ui.label(
        f"{found.new:,} labels of photos that it has not learned from, {found.corrected:,} corrected labels"
    )
    if found.withdrawn:
        ui.label(
            f"{found.withdrawn:,} labels were withdrawn: only training anew, on the page Train, forgets them."
        ).classes("fm-dim")


@ui.refreshable
def changes(project: Project) -> None:
    """Show the errors before and after."""
    grown = learning.grown(project)
    photos, right = learning.agreement(project)
    if not grown and not photos:
        return
    with ui.column().classes("fm-card gap-2"):
        ui.html("<h2>Before and after</h2>", sanitize=False)
        for line in _lines(grown, photos, right):
            ui.label(line)
        if grown:
            ui.link("Name all new photos again with the new classifier", "/name")


def _lines(grown: dict[str, Any], photos: int, right: int) -> list[str]:
    lines = []
    if old := grown.get("old_photos"):
        low, high = old["interval"]
        verdict = "a tie" if old["tie"] else "worse" if old["difference"] > 0 else "better"
        lines.append(
            "Photos that it knew, each measured without having been learned from: error "
            f"{old['error_before']:.1%} before, {old['error']:.1%} now; difference {old['difference']:+.1%} "
            f"(95 % CI {low:+.1%} to {high:+.1%}): {verdict}."
        )
    if new := grown.get("new_photos"):
        low, high = new["interval"]
        lines.append(
            f"The {new['photos']:,} newly labelled photos, measured in the same way: error "
            f"{new['error']:.1%} now (95 % CI {low:.1%} to {high:.1%})."
        )
    if photos:
        lines.append(
            f"Before, {photos - right:,} of {photos:,} first answers on new photos differed from what "
            f"people said ({1 - right / photos:.1%}). Where doubtful photos were reviewed first this is "
            "more than on all photos."
        )
    return lines
