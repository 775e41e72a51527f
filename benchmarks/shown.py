"""Write the stored results as Markdown, between marks in README.md here and in docs/performance.md.

    <!-- NAME:begin -->
    ...
    <!-- NAME:end -->

NAME is a key of `BLOCKS`. To renew the documents:
`python -m benchmarks --write-readme`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import BENCHMARKS, common
from benchmarks.common import Row, figure, spread
from benchmarks.growth import Constants, Cost, cost, even
from fieldmark.experiments.recipes import FIVE
from fieldmark.utils import io

DOCUMENTS = (Path(__file__).resolve().parent / "README.md", common.ROOT / "docs" / "performance.md")
_MARK = re.compile(r"(<!-- (\w+):begin -->\n).*?(<!-- \2:end -->)", re.DOTALL)
_NETWORKS = tuple(FIVE.values())
# Photos and classes: wild74, the paper, and on.
_SIZES = ((4_337, 74), (268_243, 1_010), (1_000_000, 10_000), (10_000_000, 100_000))

Results = dict[str, dict[str, Any]]


def write(documents: Sequence[Path] = DOCUMENTS, folder: Path = common.RESULTS) -> None:
    """Renew every block of the documents."""
    found = results(folder)
    for path in documents:
        if path.exists():
            io.write_text(path, renewed(path.read_text(), found))


def results(folder: Path = common.RESULTS) -> Results:
    """Return the stored results by benchmark, in their order."""
    return {
        name: io.read_json(folder / f"{name}.json")
        for name in BENCHMARKS
        if (folder / f"{name}.json").exists()
    }


def renewed(text: str, found: Results) -> str:
    """Return the text with every block renewed."""

    def block(match: re.Match[str]) -> str:
        return f"{match[1]}\n{BLOCKS[match[2]](found).strip()}\n\n{match[3]}"

    return _MARK.sub(block, text)


def rows_of(result: dict[str, Any]) -> list[Row]:
    """Return the rows of a stored result."""
    return [Row(**row) for row in result["rows"]]


def _needs(*names: str) -> Callable[[Callable[[Results], str]], Callable[[Results], str]]:
    """Replace a block by the command to run where one of its results is missing."""

    def wrap(make: Callable[[Results], str]) -> Callable[[Results], str]:
        def block(found: Results) -> str:
            missing = [name for name in names if name not in found]
            if missing:
                return f"*Not measured yet: `python -m benchmarks {' '.join(missing)}`.*"
            return make(found)

        return block

    return wrap


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]], left: int = 1) -> str:
    rule = ["---" if column < left else "---:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))


# --- the blocks ------------------------------------------------------------------------------------


def all_results(found: Results) -> str:
    """Return every row of every benchmark, with the machine it was measured on."""
    parts = []
    for name, result in found.items():
        lines = [
            (
                row.what,
                f"{figure(row.ours)} {row.unit}".strip(),
                f"{figure(row.peer)} {row.unit}".strip(),
                f"**{figure(row.ratio)}x**",
                spread(row),
                "" if row.aim is None else f"{figure(row.aim)}x",
                "; ".join(text for text in (row.peer_name, row.note) if text),
            )
            for row in rows_of(result)
        ]
        head = ("", "ours", "peer", "ratio", "lowest to highest", "aim", "peer, and notes")
        title = f"### {name}: {BENCHMARKS[name][0].lower()}{BENCHMARKS[name][1:]}"
        parts.append(f"{title}\n\n{_markdown(head, lines)}\n\n{_measured_on(result)}")
    missing = [name for name in BENCHMARKS if name not in found]
    if missing:
        parts.append(f"Not measured yet: {', '.join(missing)}.")
    return "\n\n".join(parts)


def _measured_on(result: dict[str, Any]) -> str:
    machine = result["machine"]
    gpu = f", {machine['gpu']}" if machine.get("gpu") else ""
    versions = result["versions"]
    main = ", ".join(f"{name} {versions[name]}" for name in ("torch", "onnxruntime") if name in versions)
    return (
        f"<sub>{result['date'][:10]}, commit {result['commit']}, {machine['cores']} cores of "
        f"{machine['processor']} ({', '.join(machine['flags'][-3:])}){gpu}, load before "
        f"{machine['load_before']}, {main}; `{result['command']}`, {result['seconds']:.0f} s</sub>"
    )


@_needs("table3")
def headline(found: Results) -> str:
    """Return Table 3 in one sentence."""
    row, *others = rows_of(found["table3"])
    train, val = row.more["train"], row.more["val"]
    tiers = [
        f"With `--compute {tier}` it takes {_time(each.ours)}, and the recipe {figure(each.ratio)} times as "
        f"long ({figure(each.low)} and {figure(each.high)})."
        for each in others
        for tier in ("half", "int8")
        if each.what == f"{row.what}, {tier}"
    ]
    said = (
        f"On {train} training and {val} validation photos the whole of Table 3 takes "
        f"{_time(row.ours)} from an empty cache, and {_time(row.peer)} with {row.peer_name} "
        f"({row.note}): **{figure(row.ratio)} times** as long (lowest and highest of "
        f"{row.rounds} rounds: {figure(row.low)} and {figure(row.high)}; the aim is "
        f"{figure(row.aim or 0)})."
    )
    return " ".join([said, *tiers])


@_needs("table3")
def factors(found: Results) -> str:
    """Return the headline's ratio as a product."""
    lines = [
        (each["what"], _time(each["seconds"]), "" if n == 0 else f"{each['factor']:.2f}x")
        for n, each in enumerate(found["table3"]["rows"][0]["more"]["factors"])
    ]
    return _markdown(("after this change", "all takes", "factor"), lines)


@_needs("table3")
def stages(found: Results) -> str:
    """Return the time of each stage of ours."""
    taken = found["table3"]["rows"][0]["more"]["stages"]
    lines = [
        (what, _time(seconds), f"{100 * seconds / taken['all']:.0f} %") for what, seconds in taken.items()
    ]
    return _markdown(("stage", "time", "share"), lines)


def _tiers(rows: Sequence[Row]) -> Iterator[tuple[str, Row, float]]:
    """Yield each tier of Table 3 with its row, and the seconds of its networks and last layers alone."""
    count = rows[0].more["train"] + rows[0].more["val"]
    for tier, ending in (("exact", ""), ("half", ", half"), ("int8", ", int8")):
        alone = sum(row.ours for row in rows if row.what.endswith(f", a photo{ending}")) * count
        same = (rows[0].what + ending, rows[0].peer_name)
        yield from ((tier, row, alone) for row in rows if (row.what, row.peer_name) == same)


@_needs("table3")
def limits(found: Results) -> str:
    """Return what Table 3 would take if everything but the networks and last layers took no time."""
    lines = []
    for tier, row, alone in _tiers(rows_of(found["table3"])):
        times = map(_time, (row.ours, alone, row.ours - alone))
        lines.append((tier, *times, *(f"{figure(ratio)}x" for ratio in (row.ratio, row.peer / alone))))
    head = ("tier", "all", "networks and last layers", "all else", "ratio", "ratio if all else took no time")
    return _markdown(head, lines)


@_needs("table3", "hardware")
def sizes(found: Results) -> str:
    """Compute the ratio of each tier at other numbers of photos, from its own fixed and running costs."""
    rows = rows_of(found["table3"])
    decode = Constants.of(found["hardware"], None).decode_seconds
    count, peer = rows[0].more["train"] + rows[0].more["val"], rows[0].peer
    costs = []
    for tier, row, alone in _tiers(rows):
        a_photo = alone / count + decode
        costs.append((tier, row, max(0.0, row.ours - a_photo * count), a_photo))
    measured = [f"{_time(row.ours)}, **{figure(row.ratio)}x**" for _, row, *_ in costs]
    lines = [(f"{count:,}, measured", _time(peer), *measured)]
    for photos, _ in _SIZES[:3]:
        theirs = peer / count * photos
        ours = [fixed + a_photo * photos for *_, fixed, a_photo in costs]
        computed = (f"{_time(each)}, {figure(theirs / each)}x" for each in ours)
        lines.append((f"{photos:,}", _time(theirs), *computed))
    told = (f"{_time(fixed)} and {1000 * each:.3g} ms in {tier}" for tier, _, fixed, each in costs)
    after = (
        f"Computed from the first line: fixed, and per photo, {'; '.join(told)}; {peer / count:.3g} s per "
        "photo of the reference. Ours is computed for photos of 800 x 600, the reference for the measured "
        "photos, which are smaller."
    )
    return f"{_markdown(('photos', 'reference', *(tier for tier, *_ in costs)), lines)}\n\n{after}"


@_needs("hardware")
def hardware(found: Results) -> str:
    """Return each stage against the machine's limit."""
    lines = [
        (
            row.what,
            f"{figure(row.ours)} {row.unit}",
            f"{figure(row.peer)} {row.unit}",
            f"{100 * row.ratio:.0f} %",
            f"{row.peer_name}{'; ' + row.note if row.note else ''}",
        )
        for row in rows_of(found["hardware"])
    ]
    head = ("stage", "reaches", "limit", "share", "kind of limit; engine")
    disk = found["hardware"]["rows"][0]["more"]
    after = (
        f"The disk writes {figure(disk['disk_write_gb_per_second'])} GB/s (synced) and reads "
        f"{figure(disk['disk_read_gb_per_second'])} GB/s.\n\n{_measured_on(found['hardware'])}"
    )
    return f"{_markdown(head, lines)}\n\n{after}"


@_needs("hardware", "tables")
def growth(found: Results) -> str:
    """Return the cost model at some sizes."""
    constants = Constants.of(found["hardware"], found["tables"])
    lines = []
    for photos, classes in _SIZES:
        all_five = cost(constants, photos, classes, _NETWORKS)
        one = cost(constants, photos, classes, ("tf_efficientnet_lite0",))
        lines.append(
            (
                f"{photos:,} photos, {classes:,} classes",
                *_five_times(all_five),
                f"{_bytes(all_five.memory_bytes)}",
                f"{_bytes(all_five.disk_bytes)}",
                _time(one.total),
                _time(all_five.reference),
            )
        )
    head = (
        *("five networks, computed", "tables", "decode", "networks", "heads", "all"),
        *("memory", "disk", "default network only", "network and decoding every epoch"),
    )
    same = figure(even(constants, _NETWORKS))
    after = f"At about {same} classes the last layers cost as much as the networks (computed)."
    return f"{_markdown(head, lines)}\n\n{after}\n\n{_constants(constants)}"


def _five_times(of: Cost) -> tuple[str, ...]:
    return tuple(_time(s) for s in (of.tables, of.decoding, of.features, of.heads, of.total))


def _constants(constants: Constants) -> str:
    networks = ", ".join(
        f"{name} {1000 * seconds:.3g} ms" for name, seconds in constants.network_seconds.items()
    )
    return (
        "Measured constants, from which all else above is computed: tables "
        f"{1e6 * constants.table_seconds:.3g} µs and {constants.table_bytes:,.0f} bytes per photo; "
        f"decoding {1000 * constants.decode_seconds:.3g} ms per photo of 800 x 600; a crop through "
        f"{networks}; a last layer at {constants.head_flops / 1e9:.3g} GFLOP/s; the disk read at "
        f"{constants.read_bytes / 1e9:.3g} GB/s."
    )


@_needs("errors")
def errors(found: Results) -> str:
    """Return the errors of both, and whether they differ."""
    lines = [
        (row.what, f"{row.ours:.3f}", f"{row.peer:.3f}", row.peer_name, row.note)
        for row in rows_of(found["errors"])
    ]
    return _markdown(("", "ours", "peer", "peer", "ours minus peer's, 95 % CI"), lines)


@_needs("tiers")
def tiers(found: Results) -> str:
    """Return the speed of each tier beside float32, and what becomes of the errors."""
    lines = [
        (row.what, figure(row.ours), figure(row.peer), spread(row) if row.unit else "", row.note)
        for row in rows_of(found["tiers"])
    ]
    head = ("", "in the tier", "exact", "ratio in each round", "")
    return f"{_markdown(head, lines)}\n\n{_measured_on(found['tiers'])}"


def _time(seconds: float) -> str:
    for unit, size in (("days", 172_800.0), ("h", 7200.0), ("min", 120.0)):
        if seconds >= size:
            return f"{figure(seconds / {'days': 86_400, 'h': 3600, 'min': 60}[unit])} {unit}"
    return f"{figure(seconds)} s"


def _bytes(count: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{figure(count / size)} {unit}"
    return f"{figure(count / 1e3)} kB"


BLOCKS: dict[str, Callable[[Results], str]] = {
    "all_results": all_results,
    "headline": headline,
    "limits": limits,
    "factors": factors,
    "stages": stages,
    "sizes": sizes,
    "hardware": hardware,
    "growth": growth,
    "errors": errors,
    "tiers": tiers,
}
