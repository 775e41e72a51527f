"""The iNaturalist challenges of 2017, 2018, 2019 and 2021: their files and MD5 checksums.

Names, sizes and checksums are those that the organisers publish in the README.md of each year, in
https://github.com/visipedia/inat_comp (as of commit 4ea5638e6f51c0a46c866305d6e0b640d40609d7, 26 May
2021). Some files have no published checksum: their digests are recorded, so that they can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass

BASE = "https://ml-inat-competition-datasets.s3.amazonaws.com"
"""The bucket of the AWS Open Data programme; files are at `/YEAR/NAME` below."""

TERMS = (
    "By downloading you agree to the organisers' terms: non-commercial research and education only, and "
    "no handing on of the images (https://github.com/visipedia/inat_comp)."
)


@dataclass(frozen=True)
class Archive:
    """One published file."""

    part: str  # the value of `--parts`
    name: str  # on the server
    size: float  # as published, in bytes; rounded to two digits or so
    md5: str = ""  # as published; empty: none is
    images: bool = False  # whether it contains photos (which counting does not need)


_MB, _GB = 1e6, 1e9

CHALLENGES: dict[str, tuple[Archive, ...]] = {
    "2017": (
        Archive("train_val", "train_val2017.zip", 26 * _MB),
        Archive("train_val", "train_val_images.tar.gz", 186 * _GB, "7c784ea5e424efaec655bd392f87301f", True),
        Archive("test", "test2017.zip", 6.3 * _MB),
        Archive("test", "test2017.tar.gz", 53 * _GB, "7d9b096fa1cd94d67a0fa779ea301234", True),
        Archive("boxes", "train_2017_bboxes.zip", 22 * _MB),
        Archive("boxes", "val_2017_bboxes.zip", 3 * _MB),
        Archive("locations", "inat2017_locations.zip", 12 * _MB, "afc1956f9a100b165b89f3923d040912"),
    ),
    "2018": (
        Archive("train_val", "train2018.json.tar.gz", 26 * _MB, "bfa29d89d629cbf04d826a720c0a68b0"),
        Archive("train_val", "val2018.json.tar.gz", 26 * _MB, "f2ed8bfe3e9901cdefceb4e53cd3775d"),
        Archive("train_val", "categories.json.tar.gz", 0),
        Archive("train_val", "train_val2018.tar.gz", 120 * _GB, "b1c6952ce38f31868cc50ea72d066cc3", True),
        Archive("test", "test2018.json.tar.gz", 6.3 * _MB, "fc717a7f53ac72ed8b250221a08a4502"),
        Archive("test", "test2018.tar.gz", 40 * _GB, "4b71d44d73e27475eefea68886c7d1b1", True),
        Archive("locations", "inat2018_locations.zip", 11 * _MB, "1704763abc47b75820aa5a3d93c6c0f3"),
    ),
    "2019": (
        Archive("train_val", "train2019.json.tar.gz", 13 * _MB, "b06a6683537867c0d5c7a45f407a306d"),
        Archive("train_val", "val2019.json.tar.gz", 156e3, "5cc5509b0fe495f1c8c1362612448497"),
        Archive("train_val", "categories.json.tar.gz", 0),
        Archive("train_val", "train_val2019.tar.gz", 74 * _GB, "c60a6e2962c9b8ccbd458d12c8582644", True),
        Archive("test", "test2019.json.tar.gz", 1.3 * _MB, "f3208996d9f675462cb00d2f18cbb28c"),
        Archive("test", "test2019.tar.gz", 8.6 * _GB, "6966703cc589a877689dc8993bb3e55e", True),
    ),
    "2021": (
        Archive("train", "train.json.tar.gz", 221 * _MB, "38a7bb733f7a09214d44293460ec0021"),
        Archive("train", "train.tar.gz", 224 * _GB, "e0526d53c7f7b2e3167b2b43bb2690ed", True),
        Archive("train_mini", "train_mini.json.tar.gz", 45 * _MB, "395a35be3651d86dc3b0d365b8ea5f92"),
        Archive("train_mini", "train_mini.tar.gz", 42 * _GB, "db6ed8330e634445efc8fec83ae81442", True),
        Archive("val", "val.json.tar.gz", 9.4 * _MB, "4d761e0f6a86cc63e8f7afc91f6a8f0b"),
        Archive("val", "val.tar.gz", 8.4 * _GB, "f6f6e0e242e3d4c9569ba56400938afc", True),
        Archive("test", "public_test.json.tar.gz", 21 * _MB, "7a9413db55c6fa452824469cc7dd9d3d"),
        Archive("test", "public_test.tar.gz", 43 * _GB, "7124b949fe79bfa7f7019a15ef3dbd06", True),
    ),
}

USUAL = {"2017": "train_val", "2018": "train_val", "2019": "train_val", "2021": "train,val"}
"""The parts that are downloaded by default."""
