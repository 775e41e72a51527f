"""Decisions of people: what a photo shows, who said so, and how to take it back.

Nothing is overwritten: each action is a row with the time and the reviewer, and keeps what every photo was
before and after it. Undo goes back action by action, redo forward, until a new action is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fieldmark.app.store import Project, State, now
from fieldmark.utils.errors import InputError
from fieldmark.utils.languages import say

_LONGEST = 200  # characters of a name


@dataclass(frozen=True)
class Action:
    """Something that a person did to photos at once."""

    id: int
    at: str
    reviewer: str
    what: str
    photos: int
    undone: bool


@dataclass(frozen=True)
class Disagreement:
    """A photo that reviewers call differently: what each said last."""

    photo: int
    said: dict[str, str]


def decide(
    project: Project,
    photos: Sequence[int],
    label: str | None,
    *,
    reviewer: str,
    state: State = "person",
    what: str = "",
) -> int:
    """Give photos a label, or with the state `unknown` say that it cannot be told; return the action.

    A label that a photo has already is confirmed: from then on it is a person's.

    Raises:
        InputError: there is no photo, or no name.
    """
    label = checked_name(label) if state == "person" else None
    what = what or (f"called {label}" if label else "marked as unknown")
    return _act(project, [(photo, label, state) for photo in dict.fromkeys(photos)], reviewer, what)


def accept(project: Project, photos: Sequence[int], *, reviewer: str) -> int:
    """Confirm the classifier's most probable label of each photo, or else the label that it has."""
    found = project.photos(list(dict.fromkeys(photos)))
    named = [(each.id, each.name or each.label) for each in found]
    changes: list[tuple[int, str | None, State]] = [(photo, name, "person") for photo, name in named if name]
    return _act(project, changes, reviewer, "accepted")


def rename(project: Project, before: str, after: str, *, reviewer: str) -> int:
    """Rename a species; with the name of another one both become one species."""
    after = checked_name(after)
    ids = project.rows("SELECT id, state FROM photos WHERE label = ? AND label != ?", (before, after))
    changes: list[tuple[int, str | None, State]] = [(photo, after, state) for photo, state in ids]
    return _act(project, changes, reviewer, f"renamed {before} to {after}")


def checked_name(name: str | None) -> str:
    """Return a species' name without spaces around it; raises InputError without one."""
    found = " ".join((name or "").split())
    if not found or len(found) > _LONGEST or not found.isprintable():
        raise InputError(say("A name has from 1 to {most} printable characters: type one.", most=_LONGEST))
    return found


def _act(project: Project, changes: Sequence[tuple[int, str | None, State]], reviewer: str, what: str) -> int:
    if not changes:
        raise InputError(say("No photo is chosen, or none has a name to accept: choose photos first."))
    with project.changing() as db:
        action = db.execute(
            "INSERT INTO actions (at, reviewer, what) VALUES (?, ?, ?)", (now(), reviewer, what)
        ).lastrowid
        assert action is not None
        db.executemany(
            "INSERT INTO changes SELECT ?, id, label, state, ?, ? FROM photos WHERE id = ?",
            [(action, label, state, photo) for photo, label, state in changes],
        )
        db.executemany(
            "UPDATE photos SET label = ?, state = ? WHERE id = ?",
            [(label, state, photo) for photo, label, state in changes],
        )
    return action


def undo(project: Project) -> Action | None:
    """Take the last action back; return it, or None where there is nothing to take back."""
    return _step(project, undone=False, order="DESC", to=("label_before", "state_before"))


def redo(project: Project) -> Action | None:
    """Make the action again that was taken back last, unless another one was made since."""
    return _step(project, undone=True, order="ASC", to=("label", "state"))


def _step(project: Project, *, undone: bool, order: str, to: tuple[str, str]) -> Action | None:
    label, state = to
    # Actions that were taken back before the last one that stands are history: they are not made again.
    later = " AND id > coalesce((SELECT max(id) FROM actions WHERE NOT undone), 0)" if undone else ""
    with project.changing() as db:
        row = db.execute(
            f"SELECT id FROM actions WHERE undone = ?{later} ORDER BY id {order} LIMIT 1", (undone,)
        ).fetchone()
        if row is None:
            return None
        db.execute(
            f"UPDATE photos SET (label, state) = (SELECT {label}, {state} FROM changes "
            "WHERE action = ? AND photo = id) WHERE id IN (SELECT photo FROM changes WHERE action = ?)",
            (row[0], row[0]),
        )
        db.execute("UPDATE actions SET undone = ? WHERE id = ?", (not undone, row[0]))
    return _actions(project, "WHERE id = ?", row[0])[0]


def history(project: Project, limit: int = 100) -> list[Action]:
    """Return the last actions, the newest first."""
    return _actions(project, "ORDER BY id DESC LIMIT ?", limit)


def _actions(project: Project, which: str, value: int) -> list[Action]:
    count = "(SELECT count(*) FROM changes WHERE action = a.id)"
    found = project.rows(f"SELECT id, at, reviewer, what, {count}, undone FROM actions a {which}", (value,))
    return [
        Action(number, at, reviewer, what, photos, bool(undone))
        for number, at, reviewer, what, photos, undone in found
    ]


def disagreements(project: Project) -> list[Disagreement]:
    """Return the photos that reviewers call differently, by what each of them said last."""
    found = project.rows(
        "SELECT photo, reviewer, coalesce(label, state), max(action) "
        "FROM changes c JOIN actions a ON a.id = c.action WHERE NOT undone AND what NOT LIKE 'renamed %' "
        "GROUP BY photo, reviewer ORDER BY photo, reviewer"
    )
    said: dict[int, dict[str, str]] = {}
    for photo, reviewer, label, _ in found:
        said.setdefault(photo, {})[reviewer] = label
    return [Disagreement(photo, each) for photo, each in said.items() if len(set(each.values())) > 1]


def reviewed(project: Project) -> dict[int, tuple[str, str]]:
    """Return who gave each photo its label of now, and when: the last action on it that stands."""
    found = project.rows(
        "SELECT photo, reviewer, at, max(action) FROM changes c JOIN actions a ON a.id = c.action "
        "WHERE NOT undone GROUP BY photo"
    )
    return {photo: (reviewer, at) for photo, reviewer, at, _ in found}
