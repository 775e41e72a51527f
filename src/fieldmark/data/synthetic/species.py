"""Invent the species of the field guide: names, taxonomy, and the field marks that distinguish them.

A family shares the outline of its wings, a genus its colours, and a species has one field mark that the
others of its genus lack. The names consist of invented syllables.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from fieldmark.utils import random

Colour = tuple[float, float, float]  # red, green, blue in [0, 1]


@dataclass(frozen=True)
class Outline:
    """The outline of one wing in polar coordinates about its root; angles in degrees.

    The wing is between the angles `low` and `high`, bent by `bulge` at half its length; its outer edge
    is at the distances `radii`, evenly spaced from the low to the high angle.
    """

    low: float
    high: float
    bulge: tuple[float, float]
    radii: tuple[float, ...]
    scallop: float = 0.0  # depth of the scallops of the outer edge, in wing lengths
    tail: float = 0.0  # length of the tail, in wing lengths


@dataclass(frozen=True)
class Palette:
    """The colours of a genus."""

    inner: Colour
    outer: Colour
    dark: Colour
    pale: Colour
    accent: Colour

    def __getitem__(self, name: str) -> Colour:
        colour: Colour = getattr(self, name)
        return colour


@dataclass(frozen=True)
class Marks:
    """The field marks of a species; lengths as shares of the wing's length."""

    margin: float = 0.07  # width of the dark border
    veins: float = 0.006  # half width of the dark veins
    spots: int = 0  # rows of pale spots in the border
    eyes_front: int = 0
    eyes_hind: int = 0
    eye_size: float = 0.07  # radius of an eyespot
    eye_ring: str = "pale"
    band: str = ""  # colour of the band across both wings; empty: none
    band_at: float = 0.6
    tip: str = ""  # colour of the forewing's tip
    bars: int = 0  # dark bars in the cell of the forewing
    flush: str = ""  # colour of the inner half of the hindwing
    freckles: int = 0  # dark dots strewn over both wings
    tail: float = 0.0


@dataclass(frozen=True)
class Species:
    """One invented species: its names and how it is drawn."""

    id: int
    family: str
    genus: str
    epithet: str
    common_name: str
    supercategory: str
    front: Outline
    hind: Outline
    palette: Palette
    marks: Marks

    @property
    def name(self) -> str:
        """Return the invented binomial."""
        return f"{self.genus} {self.epithet}"

    def category(self) -> dict[str, object]:
        """Return the entry of this species in an annotation file in the layout of iNaturalist 2021."""
        ranks = {"kingdom": "Animalia", "phylum": "Arthropoda", "class": "Insecta", "order": "Lepidoptera"}
        own = {name: getattr(self, name) for name in ("id", "name", "common_name", "supercategory")}
        lowest = {"family": self.family, "genus": self.genus, "specific_epithet": self.epithet}
        return own | ranks | lowest


def _rgb(hexadecimal: str) -> Colour:
    red, green, blue = bytes.fromhex(hexadecimal)
    return red / 255, green / 255, blue / 255


def _palette(*colours: str) -> Palette:
    return Palette(*(_rgb(colour) for colour in colours))


# Common name of the group: forewing, hindwing.
_FAMILIES = {
    "Lanterntails": (
        Outline(-14, 60, (4, 9), (0.58, 0.66, 0.70, 0.76, 0.88, 1.02, 1.03)),
        Outline(-98, 14, (-6, 4), (0.66, 0.82, 0.84, 0.78, 0.72, 0.64, 0.56), 0.02, 0.22),
    ),
    "Brushwings": (
        Outline(-12, 58, (3, 8), (0.62, 0.70, 0.68, 0.70, 0.78, 0.95, 0.93), 0.012),
        Outline(-96, 16, (-4, 5), (0.62, 0.74, 0.76, 0.77, 0.75, 0.68, 0.58), 0.025),
    ),
    "Paperwings": (
        Outline(-16, 54, (4, 10), (0.64, 0.74, 0.79, 0.84, 0.89, 0.94, 0.88)),
        Outline(-100, 16, (-6, 6), (0.60, 0.74, 0.80, 0.81, 0.79, 0.74, 0.62)),
    ),
    "Oarwings": (
        Outline(-8, 46, (5, 9), (0.56, 0.66, 0.78, 0.92, 1.02, 1.06, 0.98)),
        Outline(-88, 18, (-4, 4), (0.50, 0.60, 0.65, 0.68, 0.70, 0.68, 0.58), 0.012),
    ),
}

# inner, outer, dark, pale, accent
_PALETTES: tuple[Palette, ...] = (
    _palette("e8862a", "cf5a14", "2a1913", "fbf0d8", "f4c542"),  # fox orange
    _palette("2f83e0", "1c4fb4", "0d1020", "e3f1ff", "f08a3c"),  # kingfisher blue
    _palette("f9e06a", "efb92c", "45331c", "fffbe0", "db5b2a"),  # brimstone
    _palette("f6f3e6", "e2dfd0", "33343a", "ffffff", "f29a2e"),  # chalk
    _palette("3d3634", "1f1c20", "0a0a0d", "f3df86", "3f8fd6"),  # soot
    _palette("a8743f", "74492a", "372218", "f0d29a", "e8912f"),  # hazel
    _palette("bf3339", "8a1626", "260a10", "fde3c8", "f6b23f"),  # crimson
    _palette("52ab74", "1d7a62", "0d2924", "def6c4", "f5d757"),  # jade
    _palette("a3b1ea", "7480cf", "35315c", "f4f4ff", "f09b45"),  # harebell
    _palette("d9a468", "b67a42", "583519", "fdeccb", "4f86b8"),  # wheat
    _palette("8450b0", "512a86", "1e0f33", "efdcff", "f7a54a"),  # damson
    _palette("e56b3f", "b8443c", "43202a", "ffdcb4", "7d5ba6"),  # copper
)

# Adjective of the common name, epithet, changes of the genus' marks.
_SIGNATURES: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("Plain", "simpletta", {}),
    ("White-banded", "albizona", {"band": "pale"}),
    ("Two-eyed", "biocellina", {"eyes_hind": 2, "eye_size": 0.11}),
    ("Broad-bordered", "latolimba", {"margin": 0.27}),
    ("Jewel-tipped", "gemmitesta", {"tip": "accent"}),
    ("Pearl-bordered", "margarola", {"spots": 1, "margin": 0.16}),
    ("Lamp-lit", "lucernola", {"flush": "accent"}),
    ("Chain-eyed", "catenocla", {"eyes_hind": 5, "eyes_front": 2, "eye_size": 0.056}),
    ("Barred", "tabulosa", {"bars": 4}),
    ("Dark-veined", "nervolina", {"veins": 0.024}),
    ("Jewel-banded", "gemmizona", {"band": "accent"}),
    ("Double-pearled", "perlaria", {"spots": 2, "margin": 0.22}),
    ("Smoke-tipped", "fumitesta", {"tip": "dark"}),
    ("Freckled", "lentigosa", {"freckles": 26}),
    ("Owl-eyed", "strigocla", {"eyes_hind": 1, "eyes_front": 1, "eye_size": 0.15}),
    ("Long-tailed", "caudimera", {"tail": 0.3}),
)

_ONSETS = (
    "b", "br", "c", "d", "dr", "f", "fl", "g", "gl", "l", "m", "n",
    "p", "ph", "pr", "r", "s", "sp", "t", "tr", "th", "v", "z",
)  # fmt: skip
_VOWELS = ("a", "e", "i", "o", "u", "ae", "ia")
_CODAS = ("n", "r", "l", "s", "th", "x", "nd", "rm", "lv")
_GENUS_ENDINGS = ("thia", "ndra", "llea", "ssina", "phora", "ria", "xys", "mene")
_COMMON_ROOTS = (
    "Amberleaf", "Mistral", "Brindle", "Harlequin", "Tallow", "Vesper", "Quillwing", "Sorrel",
    "Larkfan", "Pilgrim", "Saffron", "Tinker", "Warden", "Juniper", "Sexton", "Cobbler",
)  # fmt: skip


def create_species(count: int, seed: int) -> tuple[Species, ...]:
    """Invent `count` species in genera of about four and in up to four families; ids start at 0.

    A pure function of its arguments. Names are unique.
    """
    genera = max(1, round(count / 4))
    names = _unique_names(genera, seed)
    palettes = random.order([str(i) for i in range(len(_PALETTES))], "palettes", seed)
    species: list[Species] = []
    for number, size in enumerate(_genus_sizes(count, genera)):
        palette = _PALETTES[palettes[number % len(_PALETTES)]]
        species += _genus(names[number], palette, number, range(len(species), len(species) + size), seed)
    return tuple(species)


def _genus_sizes(count: int, genera: int) -> list[int]:
    """Return different sizes of genera with sum `count`."""
    weights = np.array([6, 5, 4, 4, 3, 2], float)[np.arange(genera) % 6]
    edges = np.round(np.concatenate([[0], np.cumsum(weights)]) * count / weights.sum())
    return [int(size) for size in np.diff(edges) if size > 0]


def _unique_names(count: int, seed: int) -> list[str]:
    names: dict[str, None] = {}
    draws = itertools.count()
    while len(names) < count:
        rng = random.generator(seed, "genus name", next(draws))
        syllables = (_ONSETS, _VOWELS, _CODAS, ("a", "o", "e", "i"), _GENUS_ENDINGS)
        names["".join(rng.choice(each) for each in syllables).capitalize()] = None
    return list(names)


def _genus(name: str, palette: Palette, number: int, ids: range, seed: int) -> list[Species]:
    rng = random.generator(seed, "genus", number)
    # A palette is used again only in another family.
    family = (number + number // len(_PALETTES)) % len(_FAMILIES)
    group, (front, hind) = list(_FAMILIES.items())[family]
    base = Marks(
        margin=rng.uniform(0.05, 0.11),
        veins=rng.uniform(0.003, 0.008),
        band_at=rng.uniform(0.5, 0.64),
        eye_ring=str(rng.choice(["pale", "accent"])),
        tail=hind.tail * rng.uniform(0.8, 1.2),
    )
    front, hind = (_stretched(outline, rng.uniform(-0.06, 0.06)) for outline in (front, hind))
    root = _COMMON_ROOTS[number % len(_COMMON_ROOTS)]
    if number >= len(_COMMON_ROOTS):
        root = f"{name} {root}"
    kinds = random.order([kind[1] for kind in _SIGNATURES], "signatures", seed, number)
    made = []
    for index, number_of_species in enumerate(ids):
        adjective, epithet, changes = _SIGNATURES[kinds[index % len(kinds)]]
        marks = replace(base, **changes)
        made.append(
            Species(
                id=number_of_species,
                family=_family_name(family, seed),
                genus=name,
                epithet=epithet,
                common_name=f"{adjective} {root}",
                supercategory=group,
                front=front,
                hind=replace(hind, tail=marks.tail),
                palette=palette,
                marks=marks,
            )
        )
    return made


def _family_name(family: int, seed: int) -> str:
    rng = random.generator(seed, "family name", family)
    stem = rng.choice(_ONSETS) + "aeio"[family % 4] + rng.choice(["nt", "lph", "rt", "ss"])
    return f"{stem.capitalize()}idae"


def _stretched(outline: Outline, share: float) -> Outline:
    """Stretch the upper end of an outline by `share`."""
    ramp = 1 + share * np.linspace(-0.4, 1, len(outline.radii))
    return replace(outline, radii=tuple(float(r) for r in outline.radii * ramp))
