"""Measure the memory of the selection by `fieldmark fetch open-data`, by the length of the tables.

    python scripts/fetch_memory.py 100000 1000000 4000000

For each number of photos the four tables are generated with the published columns, 2,000 of the
observations of the requested taxon, and the selection runs in a process of its own, whose peak is
printed.
"""

from __future__ import annotations

import gzip
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

WANTED = 2_000


def write(folder: Path, photos: int) -> None:
    """Write tables in the layout of iNaturalist Open Data, one photo per observation."""
    taxa = ("taxon_id\tancestry\trank\tname\tactive", "1\t\tgenus\tParus\ttrue")
    species = ("4\t1\tspecies\tParus major\ttrue", "5\t1\tspecies\tPica pica\ttrue")
    tables = {
        "taxa": iter([*taxa, *species]),
        "observers": iter(["observer_id\tlogin\tname", *(f"{n}\tu{n}\t" for n in range(5000))]),
        "observations": observations(photos),
        "photos": pictures(photos),
    }
    for name, lines in tables.items():
        with gzip.open(folder / f"{name}.csv.gz", "wt", compresslevel=1) as handle:
            handle.writelines(f"{line}\n" for line in lines)


def uuid(number: int) -> str:
    """Return an id of the published length."""
    return f"{number:08x}-1c2b-4c9f-8f6d-{number:012x}"


def observations(count: int) -> Iterator[str]:
    """Yield one row per observation, of which `WANTED` are of the taxon."""
    yield (
        "observation_uuid\tobserver_id\tlatitude\tlongitude\tpositional_accuracy\ttaxon_id\t"
        "quality_grade\tobserved_on"
    )
    every = max(1, count // WANTED)
    for n in range(count):
        taxon = 4 if n % every == 0 else 5
        yield f"{uuid(n)}\t{n % 5000}\t50.12345\t10.12345\t5\t{taxon}\tresearch\t2024-05-01"


def pictures(count: int) -> Iterator[str]:
    """Yield one row per photo."""
    yield ("photo_uuid\tphoto_id\tobservation_uuid\tobserver_id\textension\tlicense\twidth\theight\tposition")
    for n in range(count):
        yield f"{uuid(n)}\t{n}\t{uuid(n)}\t{n % 5000}\tjpg\tCC-BY-NC\t2048\t1536\t0"


def choose(folder: Path) -> None:
    """Select photos, and print time and memory."""
    from fieldmark.data.download.selection import PhotoQuery
    from fieldmark.data.download.selection import choose as run

    start = time.perf_counter()
    chosen = run(PhotoQuery(("Parus major",), photos=WANTED), folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    text = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    seconds = time.perf_counter() - start
    say(f"{chosen.height:,} chosen of {text:,.0f} MB gzipped, {seconds:.1f} s, peak {peak:,.0f} MiB\n")


def main(words: list[str]) -> None:
    """Print one line per size."""
    if words[:1] == ["--in"]:
        choose(Path(words[1]))
        return
    for photos in map(int, words):
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), photos)
            say(f"{photos:,} photos: ")
            command = [sys.executable, __file__, "--in", folder]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def say(text: str) -> None:
    """Print and flush."""
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
