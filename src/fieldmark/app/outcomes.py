"""What becomes of the result of a job that has ended: a classifier, answers, or what a check found."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path

from fieldmark.app import answers, checking, jobs, likeness
from fieldmark.app.jobs import Job
from fieldmark.app.store import Project

_taking = threading.Lock()


def take_over(project: Project) -> list[Job]:
    """Keep the results of jobs that have ended since the last call, and return these jobs.

    `predict` ends with exit code 2 where photos were refused; its file of answers is whole nevertheless.
    """
    taken: list[Job] = []
    with _taking:  # several pages look at once
        for job in reversed(jobs.every(project.folder)):
            if job.about.get("taken"):
                break  # and so are all before it, or they failed
            if job.state in ("done", "failed") and _take(project, job):
                taken.append(job)
    return taken


def _take(project: Project, job: Job) -> bool:
    if job.kind == "predict" and (job.folder / "answers.jsonl").exists():
        lines = (job.folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
        classifier, looks = Path(job.about["words"][1]).name, likeness.looks_of(job.folder)
        answers.keep(project, map(json.loads, lines), classifier, looks)
        likeness.arrange(project)
    elif job.kind == "check" and job.state == "done":
        checking.take(project, job.folder / "check")
    elif job.kind in ("train", "grow") and job.state == "done":
        _learned(project, job)
    else:
        return False
    jobs.mark(job, taken=True)
    return True


def _learned(project: Project, job: Job) -> None:
    """Note what a classifier learned, and use it from now on."""
    with (job.folder / job.about["table"]).open(encoding="utf-8", newline="") as handle:
        rows = [
            (row["label"].removeprefix("'"), row["file_name"].removeprefix("'"))
            for row in csv.DictReader(handle)
        ]
    with project.changing() as db:
        if job.kind == "train":
            db.execute("UPDATE photos SET learned = NULL")
        db.executemany("UPDATE photos SET learned = ? WHERE path = ?", rows)
        db.execute("INSERT OR REPLACE INTO settings VALUES ('classifier', ?)", (job.about["out"],))
