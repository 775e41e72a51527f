"""List networks: their cost, licence, published results, and whether their weights are here.

Arguments:
    name: A part of a name, or a pattern such as 'vit_small*'. [default: a short list]
Options:
    all: List all pretrained networks of timm; with a name or a limit, build all that match.
    max_macs: Only networks of at most this many giga-MACs.
    max_parameters: Only networks of at most this many millions of parameters.
    here: Only networks whose weights are on this machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from fieldmark.cli import options as opt

if TYPE_CHECKING:
    from fieldmark.models.catalogue import Catalogue, Entry

_LICENCE = 40  # characters of a licence in the table


def backbones(
    name: str | None = None,
    all: bool = False,
    max_macs: Annotated[float | None, opt.Number(0)] = None,
    max_parameters: Annotated[float | None, opt.Number(0)] = None,
    here: bool = False,
    weights_dir: Path | None = None,
    json: bool = False,
    cache: Path | None = None,
) -> None:
    options = locals()
    opt.use_cache(cache)
    from fieldmark.features.cache import FeatureStore
    from fieldmark.features.extraction import measured_rates
    from fieldmark.models.catalogue import Query, catalogue
    from fieldmark.utils import io

    found = catalogue(opt.config_from(Query, options, every=all))
    rates = measured_rates(FeatureStore().folder)
    rows = [replace(each, photos_per_second=rates.get((each.name, each.size))) for each in found.networks]
    found = replace(found, networks=tuple(rows))
    click.echo(io.to_json(found.to_dict()).rstrip() if json else "\n".join(_lines(found)))


def _lines(found: Catalogue) -> Iterator[str]:
    """Format the list for the terminal."""
    from fieldmark.models.catalogue import BUILT_AT_MOST, RECOMMENDED

    sources = list(dict.fromkeys(each.published.source for each in found.networks if each.published))
    width = max((len(each.name) for each in found.networks), default=4)
    yield (
        f"{'network':<{width}} {'library':<11} {'M par.':>7} {'G-MACs':>8} {'features':>8} {'side':>4} "
        f"{'weights':<7} {'photos/s':>8}  {'published':<29} licence"
    )
    for each in found.networks:
        yield _row(each, width, sources)
    for number, source in enumerate(sources, 1):
        yield f"[{number}] {source}"
    for count, why in (
        (found.over_limits, "do not pass the filters"),
        (found.not_usable, "cannot be a backbone"),
        (found.not_built, f"were not looked at: {BUILT_AT_MOST} are, more with --all or a narrower name"),
    ):
        if count:
            yield f"Left out: {count:,} that {why}."
    yield "Recommended, the first whose weights are here or can be downloaded:"
    for name, networks in RECOMMENDED.items():
        yield f"  --backbone {name:<6}  {', '.join(networks)}"


def _row(each: Entry, width: int, sources: list[str]) -> str:
    published = ""
    if (known := each.published) is not None:
        published = f"{known.measure} {known.value:.1%} [{sources.index(known.source) + 1}]"
    licence = each.licence if len(each.licence) <= _LICENCE else each.licence[: _LICENCE - 1] + "…"
    return (
        f"{each.name:<{width}} {each.library:<11} {_number(each.parameters, 1):>7} "
        f"{_number(each.giga_macs, 2):>8} {_number(each.features, 0):>8} {each.size:>4} "
        f"{'here' if each.here else '-':<7} {_number(each.photos_per_second, 1):>8}  "
        f"{published:<29} {licence}"
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
