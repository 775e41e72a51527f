"""Page 2: one button, two questions, progress, and the report."""

from __future__ import annotations

from nicegui import ui

from fieldmark.app import learning, queues
from fieldmark.app.jobs import Job
from fieldmark.app.pages.frame import frame, job_panel, saying_errors
from fieldmark.app.store import Project


def show(project: Project) -> None:
    """Show the page."""
    intro = "A classifier learns your species from the photos, and measures how often it is right."
    with frame(project, "/train", intro, lambda: None):
        with ui.column().classes("fm-card gap-4"):
            _form(project)

        def done(job: Job) -> None:
            ui.notify("The classifier is ready.", type="positive") if job.state == "done" else None
            report.refresh(project)

        job_panel(project, ("train",), done)
        report(project)


def _form(project: Project) -> None:
    counts = queues.species_counts(project, "labelled")
    named = [row for row in counts if row[0] != "not named"]
    few = [name for name, count, _ in named if count < 5]
    ui.label(f"{sum(row[1] for row in named):,} photos of {len(named):,} species")
    if few:
        some = ", ".join(few[:5]) + (" …" if len(few) > 5 else "")
        ui.label(
            f"{len(few):,} species have fewer than 5 photos ({some}): more photos of them help most."
        ).classes("fm-dim")
    with ui.row().classes("gap-8 w-full"):
        with ui.element("fieldset").classes("border-0"):
            ui.html("<legend><h2>How long may it take?</h2></legend>", sanitize=False)
            time = ui.radio({key: said for key, (said, _) in learning.TIMES.items()}, value="quick")
            time.props('aria-label="How long may it take?"')
        with ui.element("fieldset").classes("border-0"):
            ui.html("<legend><h2>What is worse?</h2></legend>", sanitize=False)
            worse = ui.radio({key: said for key, (said, _) in learning.WORSE.items()}, value="both")
            worse.props('aria-label="What is worse?"')
    with ui.expansion("For experts").classes("w-full"):
        more = ui.input("Further options of fieldmark train").props("outlined dense").classes("w-full")
        ui.label("As on the command line, such as --backbone or --rare.").classes("fm-dim text-sm")

    def start() -> None:
        with saying_errors():
            learning.train(project, time.value, worse.value, more.value or "")
            ui.notify("Training has started. You may close this page; it goes on.", type="positive")

    ui.button("Train", icon="school", on_click=start).props("size=lg")


@ui.refreshable
def report(project: Project) -> None:
    """Show the report of the newest classifier."""
    classifier = learning.classifier_of(project)
    if classifier is None:
        return
    address = f"/report/{classifier.name}/report.html"
    with ui.row().classes("items-center gap-4 w-full"):
        ui.html(f"<h2>Report of classifier {classifier.name}</h2>", sanitize=False)
        ui.link("Open it in a tab of its own", address, new_tab=True)
        ui.link("Name new photos", "/name")
    frame_ = ui.element("iframe").classes("fm-report")
    frame_.props(f'src="{address}" title="Report of the classifier" sandbox="allow-scripts"')
