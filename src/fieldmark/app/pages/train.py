"""Page 2: one button, two questions, progress, and the report."""

from __future__ import annotations

from collections.abc import Mapping

from nicegui import ui

from fieldmark.app import learning, queues, wording
from fieldmark.app.jobs import Job
from fieldmark.app.pages.frame import frame, heading, job_panel, saying_errors
from fieldmark.app.store import Project
from fieldmark.utils.languages import say, say_count


def show(project: Project) -> None:
    """Show the page."""
    intro = say("A classifier learns your species from the photos, and measures how often it is right.")
    with frame(project, "/train", intro, lambda: None):
        with ui.column().classes("fm-card gap-4"):
            _form(project)

        def done(job: Job) -> None:
            if job.state == "done":
                ui.notify(say("The classifier is ready."), type="positive")
            report.refresh(project)

        job_panel(project, ("train",), done)
        report(project)


def _form(project: Project) -> None:
    counts = queues.species_counts(project, "labelled")
    named = [row for row in counts if row[0] != wording.NOT_NAMED]
    few = [name for name, count, _ in named if count < 5]
    ui.label(wording.photos_of_species(sum(row[1] for row in named), len(named)))
    if few:
        some = ", ".join(few[:5]) + (" …" if len(few) > 5 else "")
        ui.label(
            say_count(
                "{count} species has fewer than 5 photos ({some}): more photos of it help most.",
                "{count} species have fewer than 5 photos ({some}): more photos of them help most.",
                len(few),
                some=some,
            )
        ).classes("fm-dim")
    with ui.row().classes("gap-8 w-full"):
        with ui.element("fieldset").classes("border-0"):
            time = _question(say("How long may it take?"), learning.TIMES, "quick")
        with ui.element("fieldset").classes("border-0"):
            worse = _question(say("What is worse?"), learning.WORSE, "both")
    with ui.expansion(say("For experts")).classes("w-full"):
        more = ui.input(say("Further options of fieldmark train")).props("outlined dense").classes("w-full")
        ui.label(say("As on the command line, such as --backbone or --rare.")).classes("fm-dim text-sm")

    def start() -> None:
        with saying_errors():
            learning.train(project, time.value, worse.value, more.value or "")
            said = say("Training has started. You may close this page; it goes on.")
            ui.notify(said, type="positive")

    ui.button(say("Train"), icon="school", on_click=start).props("size=lg")


def _question(text: str, answers: Mapping[str, tuple[str, object]], value: str) -> ui.radio:
    with ui.element("legend"):
        heading(2, text)
    radio = ui.radio({key: say(said) for key, (said, _) in answers.items()}, value=value)
    radio.props["aria-label"] = text
    return radio


@ui.refreshable
def report(project: Project) -> None:
    """Show the report of the newest classifier."""
    classifier = learning.classifier_of(project)
    if classifier is None:
        return
    address = f"/report/{classifier.name}/report.html"
    with ui.row().classes("items-center gap-4 w-full"):
        heading(2, say("Report of classifier {name}", name=classifier.name))
        ui.link(say("Open it in a tab of its own"), address, new_tab=True)
        ui.link(say("Name new photos"), "/name")
    frame_ = ui.element("iframe").classes("fm-report")
    frame_.props(f'src="{address}" sandbox="allow-scripts"')
    frame_.props["title"] = say("Report of the classifier")
