"""Run the benchmarks: `python -m benchmarks [NAME...] [--quick] [--write-readme]`.

Each prints one table and writes one file, `results/NAME.json`. `--quick` runs one small round, to check
that everything works, and writes nothing. `--write-readme` runs nothing: it renews the tables in
README.md and docs/performance.md from the stored results.
"""

from __future__ import annotations

import argparse
import compileall
import importlib
import os
import sys
import time
from collections.abc import Sequence

from benchmarks import BENCHMARKS, LONG, common, shown
from fieldmark.utils import io


def main(words: Sequence[str] | None = None) -> int:
    """Run the named benchmarks; return 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="one small round; writes nothing")
    parser.add_argument("--write-readme", action="store_true", help="renew the tables, run nothing")
    given = parser.parse_args(words)
    if unknown := [name for name in given.names if name not in BENCHMARKS]:
        parser.error(f"unknown benchmark {', '.join(unknown)}: choose {', '.join(BENCHMARKS)}")
    if given.write_readme:
        shown.write()
        return 0
    # As pip does: where the environment forbids Python to write bytecode, each start compiles the source.
    compileall.compile_dir(common.ROOT / "src", quiet=2)
    names = given.names or [name for name in BENCHMARKS if name not in LONG]
    failed = [name for name in names if not run(name, quick=given.quick)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(name: str, *, quick: bool) -> bool:
    """Run one benchmark, print its table and write its record; return False if it failed."""
    load, start = os.getloadavg()[0], time.perf_counter()
    try:
        rows: list[common.Row] = importlib.import_module(f"benchmarks.{name}").run(quick=quick)
    except common.Unavailable as why:
        print(f"{name}: skipped, {why}\n", flush=True)
        return True
    except Exception as error:  # one that breaks must not keep the others from running
        print(f"{name}: {type(error).__name__}: {error}\n", file=sys.stderr, flush=True)
        return False
    found = common.record(name, rows, time.perf_counter() - start, load)
    print(f"{common.table(name, rows)}\n{name} took {found['seconds']} s\n", flush=True)
    if not quick:
        io.write_json(common.RESULTS / f"{name}.json", found)
    return True


if __name__ == "__main__":
    sys.exit(main())
