"""What all pages share: the bar at the top, messages of errors, dialogs, and the panel of a job."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from nicegui import run, ui
from nicegui.elements.mixins.text_element import TextElement

from fieldmark.app import decisions, jobs, outcomes, wording
from fieldmark.app.jobs import Job
from fieldmark.app.store import Project
from fieldmark.utils import languages
from fieldmark.utils.errors import FieldmarkError
from fieldmark.utils.languages import say, say_count, to_say
from fieldmark.utils.logging import format_duration

STATIC = Path(__file__).parents[1] / "static"
NAMES = {
    "/": to_say("Photos"),
    "/train": to_say("Train"),
    "/name": to_say("Name"),
    "/review": to_say("Review"),
    "/next": to_say("Label next"),
    "/learn": to_say("Learn again"),
    "/results": to_say("Results"),
}
_SAID: dict[str, dict[jobs.State, str]] = {
    "train": {
        "running": to_say("Training is running"),
        "done": to_say("Training is done"),
        "failed": to_say("Training has failed"),
        "cancelled": to_say("Training was cancelled"),
        "interrupted": to_say("Training was interrupted"),
    },
    "grow": {
        "running": to_say("Learning again is running"),
        "done": to_say("Learning again is done"),
        "failed": to_say("Learning again has failed"),
        "cancelled": to_say("Learning again was cancelled"),
        "interrupted": to_say("Learning again was interrupted"),
    },
    "predict": {
        "running": to_say("Naming photos is running"),
        "done": to_say("Naming photos is done"),
        "failed": to_say("Naming photos has failed"),
        "cancelled": to_say("Naming photos was cancelled"),
        "interrupted": to_say("Naming photos was interrupted"),
    },
    "check": {
        "running": to_say("Checking photos is running"),
        "done": to_say("Checking photos is done"),
        "failed": to_say("Checking photos has failed"),
        "cancelled": to_say("Checking photos was cancelled"),
        "interrupted": to_say("Checking photos was interrupted"),
    },
}
Way = Literal["undo", "redo"]
_WAYS: dict[Way, str] = {"undo": to_say("Undo"), "redo": to_say("Redo")}  # by the names of their icons
R = TypeVar("R")

KEYS_TO_WALL = "() => document.querySelector('.fm-wall.acts')?.dispatchEvent(new Event('take'))"
"""What a menu does in the page when it closes: the next keys are for the wall, if there is one."""


async def in_thread(call: Callable[..., R], *arguments: object) -> R:
    """Call a function that takes long, while the page goes on."""
    return cast(R, await run.io_bound(call, *arguments))  # None only while the application stops


@contextmanager
def saying_errors() -> Iterator[None]:
    """Show an error that fieldmark raises on purpose as a message."""
    try:
        yield
    except FieldmarkError as error:
        ui.notify(str(error), type="warning", multi_line=True, timeout=8000, close_button=say("Close"))


def reviewer(project: Project) -> str:
    """Return the name of the person who decides: as typed in the bar, else the user's of this computer."""
    if name := project.setting("reviewer"):
        return name
    with suppress(Exception):  # there is no user's name in some containers
        return getpass.getuser()
    return "reviewer"


def heading(level: int, text: str) -> None:
    """Add a heading."""
    TextElement(tag=f"h{level}", text=text)


@contextmanager
def frame(project: Project, path: str, intro: str, refresh: Callable[[], object]) -> Iterator[None]:
    """Show the bar and the heading, then what the block adds; `refresh` is called after undo and redo."""
    ui.add_css(_theme())
    ui.add_css(STATIC / "app.css")
    ui.page_title(f"{say(NAMES[path])} · fieldmark")
    _bar(project, path, refresh)
    with ui.element("div").classes("fm-page column no-wrap"):
        with ui.column().classes("gap-0"):
            heading(1, say(NAMES[path]))
            ui.label(intro).classes("fm-dim")
        yield


def colour(name: str) -> str:
    """Return what a plot takes as the value of `:color`: a colour of the theme, as the page shows it."""
    return f"getComputedStyle(document.body).getPropertyValue('--{name}').trim()"


@cache
def _theme() -> str:
    """Return the colours and sizes of all pages; here dark is what a person chose, not the system alone."""
    text = (resources.files("fieldmark.reports") / "templates" / "theme.css").read_text(encoding="utf-8")
    system, here = "@media (prefers-color-scheme: dark) {\n  :root {", "body.body--dark {\n  & {"
    assert system in text
    return text.replace(system, here)


def _bar(project: Project, path: str, refresh: Callable[[], object]) -> None:
    dark = ui.dark_mode({"light": False, "dark": True}.get(project.setting("look")))

    def stepped(way: Way) -> None:
        step(project, way)
        refresh()

    def look() -> None:
        dark.value = not dark.value
        project.set("look", "dark" if dark.value else "light")
        ui.navigate.reload()  # plots are drawn in the colours that they find

    with ui.header(elevated=False).classes("fm-top row items-center no-wrap"):
        ui.label("fieldmark").classes("fm-brand text-bold")
        with ui.element("nav").classes("fm-nav") as pages:
            for target, name in NAMES.items():
                link = ui.link(say(name), target)
                if target == path:
                    link.props("aria-current=page")
        pages.props["aria-label"] = say("Pages")
        # On a phone the names of the pages do not all fit: that of this one is in sight.
        ui.run_javascript(
            "document.querySelector('.fm-nav [aria-current]')"
            ".scrollIntoView({inline: 'center', block: 'nearest'})"
        )
        for way, word in _WAYS.items():
            _tool(way, say(word), partial(stepped, way))
        _tool("contrast", say("Light or dark"), look)
        with _tool("language", say("Language")), ui.menu() as menu, ui.list().props("dense"):
            chosen = project.setting(languages.SETTING)
            for code, name in {"": say("As in the browser"), **languages.LANGUAGES}.items():
                item = ui.item(name, on_click=lambda code=code: _choose_language(project, code))
                item.props(f"{'active' * (code == chosen)} lang={code or languages.spoken()}")
        menu.on("before-hide", js_handler=KEYS_TO_WALL)
        _tool("person", say("Who reviews"), lambda: _ask_reviewer(project))


def _tool(icon: str, word: str, on_click: Callable[[], object] | None = None) -> ui.button:
    """Add a symbol to the bar."""
    button = ui.button(icon=icon, on_click=on_click).props("flat round dense color=inherit").tooltip(word)
    button.props["aria-label"] = word
    return button


def _choose_language(project: Project, code: str) -> None:
    project.set(languages.SETTING, code)
    ui.navigate.reload()


def step(project: Project, way: Way) -> None:
    """Take the last action back, or make it again, and say which it was."""
    found = decisions.undo(project) if way == "undo" else decisions.redo(project)
    if found is None:
        said = say("There is nothing to undo.") if way == "undo" else say("There is nothing to redo.")
    else:
        said = say_count(
            "{way}: {what} ({count} photo, {reviewer})",
            "{way}: {what} ({count} photos, {reviewer})",
            found.photos,
            way=say(_WAYS[way]),
            what=wording.action(found.what),
            reviewer=found.reviewer,
        )
    ui.notify(said, position="bottom-left")


def _ask_reviewer(project: Project) -> None:
    with ui.dialog(value=True) as dialog, ui.card():
        ui.label(say("Decisions are kept under this name:"))
        name = ui.input(say("Reviewer"), value=reviewer(project)).props("autofocus outlined dense")

        def keep() -> None:
            with saying_errors():
                project.set("reviewer", decisions.checked_name(name.value))
                dialog.close()

        name.on("keydown.enter", keep)
        ui.button(say("Keep"), on_click=keep)


def job_panel(project: Project, kinds: tuple[str, ...], on_done: Callable[[Job], None]) -> None:
    """Show the last job of some kinds: how far it is, cancel, go on, its log; `on_done` after its end."""
    with ui.column().classes("fm-card gap-2") as card:
        head = ui.label().classes("fm-job").props('role="status"')
        bar = ui.linear_progress(show_value=False, size="10px").props("instant-feedback")
        bar.props["aria-label"] = say("Progress")
        with ui.row().classes("gap-2"):
            cancel = ui.button(say("Cancel"), icon="stop", on_click=lambda: act(Job.cancel)).props("outline")
            resume = ui.button(say("Go on"), icon="play_arrow", on_click=lambda: act(Job.start))
        with ui.expansion(say("Command and log")).classes("w-full"):
            log = ui.label().classes("fm-log").props("tabindex=0")

    def job() -> Job | None:
        return next((each for each in reversed(jobs.every(project.folder)) if each.kind in kinds), None)

    def act(call: Callable[[Job], None]) -> None:
        if found := job():
            with saying_errors():
                call(found)

    def taken() -> dict[Path, Job]:
        found = (each for each in jobs.every(project.folder) if each.kind in kinds)
        return {each.folder: each for each in found if each.about.get("taken")}

    shown = set(taken())

    async def look() -> None:
        await in_thread(outcomes.take_over, project)
        # The results may have been taken over by another page, or by one that was left.
        for folder, each in taken().items():
            if folder not in shown:
                shown.add(folder)
                on_done(each)
        found = job()
        card.visible = found is not None
        if found is None:
            return
        state, progress = found.state, found.progress()
        head.text = _said(found, state, progress)
        bar.visible = cancel.visible = state == "running"
        resume.visible = state in ("interrupted", "cancelled", "failed")
        bar.value = progress.done / progress.total if progress.total else 0
        bar.props(remove="indeterminate") if progress.total else bar.props("indeterminate")
        log.text = found.text()

    ui.timer(1.0, look)


def _said(job: Job, state: jobs.State, progress: jobs.Progress) -> str:
    """Say how far a job is, or how it ended."""
    text, step = say(_SAID[job.kind][state]), wording.stage(progress.stage)
    if state == "failed" and (said := job.text().splitlines()):
        return f"{text}: {said[-1].removeprefix('fieldmark: ')}"
    if state != "running":
        return text
    count = say("{done} of {total}", done=progress.done, total=progress.total)
    if progress.left:
        left = say("about {time} left of this step", time=format_duration(progress.left))
        return f"{text}: {step}, {count}, {left}"
    return f"{text}: {step}, {count}" if progress.total else f"{text}: {step}"


def species_input(label: str, names: list[str], on_name: Callable[[str], Any] | None = None) -> ui.input:
    """Return a field for a species' name, which completes names that are known.

    Enter gives the name to `on_name`; None: to a wall, see `PhotoWall`.
    """
    field = ui.input(label, autocomplete=names).props("outlined dense clearable").classes("w-full")

    def take() -> None:
        if on_name and field.value and field.value.strip():
            value, field.value = field.value, ""
            on_name(value)

    if on_name:
        field.on("keydown.enter", take)
    return field
