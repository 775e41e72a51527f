"""The photos of a project to label next."""

from __future__ import annotations

from fieldmark.app.store import Project

AT_ONCE = 20


def suggest(project: Project, count: int = AT_ONCE) -> tuple[int, ...]:
    """Return the photos whose labels should help most, the most helpful first.

    They are those with the smallest margins between the two most probable labels, and one of each event,
    since photos of one visit are much alike. The benchmark `next` compares rules.
    """
    found = project.rows(
        "SELECT id FROM (SELECT p.id, a.margin, row_number() OVER "
        "(PARTITION BY coalesce(p.event, -p.id) ORDER BY a.margin, p.path) AS number "
        "FROM photos p JOIN answers a ON a.photo = p.id "
        "WHERE p.role = 'new' AND p.reason IS NULL AND p.state = 'none' AND a.kind IS NULL "
        "AND coalesce(p.event, -p.id) NOT IN "
        "(SELECT coalesce(event, -id) FROM photos WHERE role = 'new' AND state IN ('person', 'unknown'))) "
        "WHERE number = 1 ORDER BY margin LIMIT ?",
        (count,),
    )
    return tuple(row[0] for row in found)
