"""Which photos a wall shows, and in which groups: by species, event, doubt or place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fieldmark.app import decisions, wording
from fieldmark.app.store import Project, Role
from fieldmark.utils.languages import say, spoken, to_say

By = Literal["species", "event", "doubt", "place"]
Order = Literal["doubt", "likeness"]
Which = Literal["open", "done", "all", "refused", "disagreements"]

_CALLED = (
    f"coalesce(p.label, CASE WHEN p.state = 'unknown' THEN '{wording.UNKNOWN}' ELSE a.name END, "
    f"'{wording.NOT_NAMED}')"
)
_EVENT = "coalesce(p.event, -p.id)"
_PHOTOS = "count(DISTINCT coalesce(whole, id))"  # the boxes of a photo are one
_DOUBTS = (
    (0.0, to_say("Not named yet")),
    (0.2, to_say("Very doubtful")),
    (0.5, to_say("Doubtful")),
    (0.8, to_say("Likely")),
    (2.0, to_say("Nearly certain")),
)
"""Up to which margin between the first two labels an answer is called what."""
_CASES = (f"WHEN coalesce(a.margin, -1) < {most} THEN {at}" for at, (most, _) in enumerate(_DOUBTS))
_DOUBT = f"CASE {' '.join(_CASES)} END"


MOST_ANSWERS = 5
"""So many of the likeliest species have a key."""


@dataclass(frozen=True)
class Query:
    """Which photos are shown, and how.

    Attributes:
        role: those to learn from, or those that the classifier names.
        by: how they are grouped.
        which: `open` ones have an answer or nothing and wait for a person, `done` ones have a person's
            decision; `refused` ones cannot be used.
        species: only those that are called so now; "": all.
        least: only answers of at least this probability; what bulk acceptance is of.
        order: of a group: by `doubt`, but of an event by time; or by likeness, see `fieldmark.app.likeness`.
    """

    role: Role = "new"
    by: By = "species"
    which: Which = "open"
    species: str = ""
    least: float = 0.0
    order: Order = "doubt"


@dataclass(frozen=True)
class Group:
    """Photos of a wall that stand together below one heading."""

    name: str
    count: int


@dataclass(frozen=True)
class Wall:
    """The photos of a wall in their order, and its groups one after the other."""

    ids: tuple[int, ...]
    groups: tuple[Group, ...]


def wall(project: Project, query: Query) -> Wall:
    """Return the photos that a query asks for; events stand by place and time."""
    if query.which == "disagreements":
        ids = tuple(each.photo for each in decisions.disagreements(project))
        return Wall(ids, (Group(say("Reviewers disagree"), len(ids)),) if ids else ())
    key, order = {
        "species": (_CALLED, f"{_CALLED} COLLATE NOCASE, {_CALLED}"),
        "event": (_EVENT, f"p.place, min(p.taken) OVER (PARTITION BY {_EVENT}), {_EVENT}"),
        "doubt": (_DOUBT, _DOUBT),
        "place": ("coalesce(p.place, '')", "coalesce(p.place, '')"),
    }[query.by]
    within = "p.taken" if query.by == "event" else "coalesce(a.margin, -1)"
    within = "a.likeness" if query.order == "likeness" else within
    about = f", p.place, min(p.taken) OVER (PARTITION BY {_EVENT})" if query.by == "event" else ""
    found = project.rows(
        f"SELECT p.id, {key}{about} FROM photos p LEFT JOIN answers a ON a.photo = p.id "
        f"WHERE p.role = ? AND {_which(query)} ORDER BY {order}, {within}, p.path",
        (query.role, *([query.species] if query.species else []), *([query.least] if query.least else [])),
    )
    return Wall(tuple(row[0] for row in found), _groups(project, query.by, found))


def _which(query: Query) -> str:
    parts = {
        "open": "p.reason IS NULL AND p.state IN ('none', 'given')",
        "done": "p.reason IS NULL AND p.state IN ('person', 'unknown')",
        "all": "p.reason IS NULL AND p.state != 'out'",
        "refused": "p.reason IS NOT NULL",
    }
    found = parts[query.which]
    found += f" AND {_CALLED} = ?" if query.species else ""
    return found + (" AND a.score >= ?" if query.least else "")


def _groups(project: Project, by: By, rows: Sequence[tuple[Any, ...]]) -> tuple[Group, ...]:
    common = common_names(project) if by == "species" else {}
    heads: dict[By, Callable[..., str]] = {
        "event": lambda _, *about: _event(*about),
        "species": lambda name: shown_name(name, common),
        "doubt": lambda at: say(_DOUBTS[at][1]),
        "place": lambda place: place or say("No place"),
    }
    names: list[str] = []
    counts: list[int] = []
    last: object = None
    for _, key, *about in rows:
        if not counts or key != last:  # there are many rows, and few groups
            names.append(heads[by](key, *about))
            counts.append(0)
            last = key
        counts[-1] += 1
    return tuple(map(Group, names, counts))


def _event(place: str = "", taken: str | None = None) -> str:
    return f"{place} · {taken[:16].replace('T', ' ')}" if taken else place


def common_names(project: Project) -> dict[str, str]:
    """Return the common names of species in the language of the reader, where a source told them.

    A name whose language the source does not tell counts as English.
    """
    key = "common_name" if spoken() == "en" else f"common_name_{spoken()}"
    return {name: facts[key] for name, facts in project.facts().items() if facts.get(key)}


def shown_name(name: str, common: Mapping[str, str]) -> str:
    """Return a species with its common name, or what stands in its place."""
    return f"{name} ({common[name]})" if name in common else wording.species(name)


def tiles(project: Project, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Return what a wall draws of each photo: its number, name, state and probability."""
    return [
        {
            "id": each.id,
            "name": wording.species(
                each.label or (wording.UNKNOWN if each.state == "unknown" else each.name or "")
            ),
            "answer": each.name or "",
            "answers": min(MOST_ANSWERS, len(likeliest(each.record))),
            "state": "refused"
            if each.reason
            else each.state
            if each.label or each.state in ("unknown", "out")
            else "none",
            "score": each.score,
            "note": wording.reason(each.reason)
            if each.reason
            else say("left out")
            if each.state == "out"
            else "",
            "file": each.path.name,
        }
        for each in project.photos(ids)
    ]


def species_counts(project: Project, role: Role) -> list[tuple[str, int, int]]:
    """Return each species of the usable photos: its name, its photos, and those that a person named."""
    found = project.rows(
        f"SELECT {_CALLED}, count(*), sum(p.state = 'person') FROM photos p "
        "LEFT JOIN answers a ON a.photo = p.id "
        f"WHERE p.role = ? AND p.reason IS NULL AND p.state != 'out' GROUP BY {_CALLED} ORDER BY 2 DESC, 1",
        (role,),
    )
    return [(name, count, persons or 0) for name, count, persons in found]


def refused_counts(project: Project, role: Role) -> dict[str, int]:
    """Count the photos that cannot be used, by the reason, the most frequent first."""
    return dict(
        project.rows(
            "SELECT reason, count(*) FROM photos WHERE role = ? AND reason IS NOT NULL "
            "GROUP BY 1 ORDER BY 2 DESC",
            (role,),
        )
    )


def progress(project: Project) -> dict[str, int]:
    """Count the new photos: all that can be used, those that are named, and those that a person decided."""
    [row] = project.rows(
        "SELECT count(*), sum(a.photo IS NOT NULL), sum(p.state IN ('person', 'unknown')) FROM photos p "
        "LEFT JOIN answers a ON a.photo = p.id WHERE p.role = 'new' AND p.reason IS NULL"
    )
    return dict(zip(("photos", "named", "decided"), (each or 0 for each in row), strict=True))


def boxes(project: Project) -> int:
    """Count the boxes among the new photos."""
    return int(
        project.value(
            "SELECT count(*) FROM photos WHERE role = 'new' AND reason IS NULL AND whole IS NOT NULL"
        )
    )


def days(project: Project, role: Role) -> dict[str, int]:
    """Count the usable photos of each day, as YYYY-MM-DD on the camera's clock."""
    found = project.rows(
        f"SELECT replace(substr(taken, 1, 10), ':', '-'), {_PHOTOS} FROM photos "
        "WHERE role = ? AND reason IS NULL AND (taken LIKE '____-__-__%' OR taken LIKE '____:__:__%') "
        "GROUP BY 1",
        (role,),
    )
    return dict(found)


def places(project: Project, role: Role) -> list[tuple[float, float, int]]:
    """Count the usable photos at each place that is known: latitude, longitude, photos."""
    found = project.rows(
        f"SELECT round(latitude, 4), round(longitude, 4), {_PHOTOS} FROM photos "
        "WHERE role = ? AND reason IS NULL AND latitude IS NOT NULL AND longitude IS NOT NULL GROUP BY 1, 2",
        (role,),
    )
    return [(latitude, longitude, count) for latitude, longitude, count in found]


def likeliest(record: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Return the most probable labels of an answer: name, common name, probability."""
    return [(each["name"], each.get("common_name", ""), each["score"]) for each in record.get("labels", ())]
