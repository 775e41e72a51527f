"""Kill and fail every command at every write, and count what comes of it: `python -m tests.torture FOLDER`.

The points are in a fixed random order, so that those of the first hour are a fair sample of all. Each is
written to `points.jsonl` in the folder: the same command goes on. `summary.md` is written at the end.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from tests.conftest import draw_photo
from tests.torture.commands import COMMANDS, Command
from tests.torture.scan import Torture
from tests.torture.shim import FAULTS, Fault, build


def main() -> None:
    """Read the arguments, and scan."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", action="append", choices=[each.name for each in COMMANDS])
    parser.add_argument("--minutes", type=float, default=float("inf"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if (library := build(options.folder)) is None:
        sys.exit("There is no C compiler (cc), or this is not Linux: nothing was tried.")
    end = time.monotonic() + 60 * options.minutes
    shutil.rmtree(options.folder / "run", ignore_errors=True)
    torture = Torture(options.folder / "run", library, draw_photo)
    try:
        scan(
            torture,
            options.folder,
            [each for each in COMMANDS if each.name in (options.only or each.name)],
            end,
        )
    finally:
        torture.close()
        summarise(options.folder)


def scan(torture: Torture, folder: Path, wanted: Iterable[Command], end: float) -> None:
    """Try all points that were not tried before, until the time is over."""
    tried = folder / "points.jsonl"
    done = {(each["command"], each["fault"], each["at"]) for each in _read(tried)}
    # The commands take turns.
    queues = {command: _points(command, torture.clean(command)[1], done) for command in wanted}
    (folder / "calls.json").write_text(
        json.dumps({each.name: torture.clean(each)[1].hex() for each in queues})
    )
    while any(queues.values()):
        for command, queue in queues.items():
            if not queue:
                continue
            if time.monotonic() > end:
                return
            fault, at = queue.pop()
            verdict = torture.point(command, fault, at)
            with tried.open("a") as out:
                out.write(json.dumps(asdict(verdict)) + "\n")
            if verdict.problems:
                sys.stdout.write(f"{command.name} {fault.name} {at}: {verdict.problems[:3]}\n")
                sys.stdout.flush()


def points(calls: bytes) -> list[tuple[Fault, int]]:
    """All points of a command whose calls are of these kinds.

    A disk that stays full is first seen by the next call that takes room, so there is one point for each.
    """
    numbered = list(enumerate(calls, 1))
    return [(fault, at) for fault in FAULTS for at, kind in numbered if not fault.lasts or kind & fault.kinds]


def _points(command: Command, calls: bytes, done: set[tuple[str, str, int]]) -> list[tuple[Fault, int]]:
    every = points(calls)
    random.Random(command.name).shuffle(every)
    return [(fault, at) for fault, at in every if (command.name, fault.name, at) not in done]


def _read(points: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in points.read_text().splitlines()] if points.exists() else []


def summarise(folder: Path) -> None:
    """Write and print the table of what came of the points."""
    verdicts = _read(folder / "points.jsonl")
    calls = json.loads((folder / "calls.json").read_text()) if (folder / "calls.json").exists() else {}
    lines = [
        "| Command | Writes | Points tried | No problem | Ran again | Same bytes | Exit code |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in calls:
        mine = [each for each in verdicts if each["command"] == name]
        codes = Counter(str(each["code"]) for each in mine)
        good, same, again = (
            (
                sum(map(bool, each))
                for each in zip(
                    *((not v["problems"], v["identical"], v["ran_again"]) for v in mine), strict=True
                )
            )
            if mine
            else (0, 0, 0)
        )
        ends = ", ".join(f"{code}: {count}" for code, count in codes.most_common())
        kinds = bytes.fromhex(calls[name])
        lines.append(
            f"| {name} | {len(kinds)} | {len(mine)} of {len(points(kinds))} "
            f"| {good} | {again} | {same} | {ends} |"
        )
    text = "\n".join(lines) + "\n"
    (folder / "summary.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
