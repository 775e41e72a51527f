"""Read what a camera wrote into a photo beside the pixels: EXIF 2.32.

Cameras write what they do not know: empty names, the place 0° N 0° E, the 45th of a 13th month. All of
that counts as unknown.
"""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from fieldmark.data import image_containers
from fieldmark.data.images import extras, pillow
from fieldmark.data.images.limits import as_rejections

if TYPE_CHECKING:
    from PIL import Image

_MAKE, _MODEL, _EXIF, _GPS = 0x010F, 0x0110, 0x8769, 0x8825
_SERIAL, _TAKEN, _ZONE = 0xA431, 0x9003, 0x9011
_MAKER_NOTE = 0x927C
_RECONYX = {
    b"\x01\xf1": (0x26, 0x2A, 30, "utf-16-le"),
    b"RECONYXUF\0": (0x44, 0x4B, 15, "latin-1"),
    b"RECONYXH2\0": (0x4E, 0x7E, 30, "utf-16-le"),
}
"""How the maker notes of Reconyx cameras begin (HyperFire, UltraFire, HyperFire 2); where the temperature is
(16 bits in degrees Fahrenheit, then 16 in Celsius); where the serial number is, how many bytes it has, and
their encoding. As documented by ExifTool, Reconyx tags."""
_LATITUDE, _LONGITUDE, _STATUS = (1, 2, "N", "S", 90), (3, 4, "E", "W", 180), 9


@dataclass(frozen=True)
class Exif:
    """What is known of a photo from its EXIF data.

    Attributes:
        taken: when, as ISO 8601, UTC without a zone; "" where it is unknown.
        latitude, longitude: in degrees, north and east positive; None: unknown. Both or none are known.
        camera_model: maker and model, with a space between them; "" where both are unknown.
        camera_serial: the camera's serial number, of EXIF or the maker note; "" where it is unknown.
        temperature: of the camera in degrees Celsius, from the maker note; None: unknown.
    """

    taken: str = ""
    latitude: float | None = None
    longitude: float | None = None
    camera_model: str = ""
    camera_serial: str = ""
    temperature: int | None = None


def exif(data: bytes) -> Exif:
    """Read the EXIF data of a photo; the pixels may be missing.

    Raises:
        ImageRejected: the bytes are not an image.
    """
    with as_rejections(), pillow.ignore_warnings():
        first = _directory(data)
        about, where = first.get_ifd(_EXIF), first.get_ifd(_GPS)
        maker, model, note = _text(first.get(_MAKE)), _text(first.get(_MODEL)), about.get(_MAKER_NOTE)
        camera = " ".join(name for name in (maker, model) if name)
        serial = _text(about.get(_SERIAL)) or serial_of(note)
        latitude, longitude = _degrees(where, *_LATITUDE), _degrees(where, *_LONGITUDE)
        if None in (latitude, longitude) or latitude == longitude == 0 or _text(where.get(_STATUS)) == "V":
            latitude = longitude = None
        taken = _time(_text(about.get(_TAKEN)), _text(about.get(_ZONE)))
        return Exif(taken, latitude, longitude, camera, serial, temperature_of(note))


def temperature_of(note: object) -> int | None:
    """Return the temperature in the maker note of a camera, in degrees Celsius; None where it is unknown.

    Both scales have to agree: a note of another layout, or with nothing in it, gives no temperature.
    """
    for start, (at, *_) in _RECONYX.items():
        if isinstance(note, bytes) and note.startswith(start) and len(note) >= at + 4:
            fahrenheit, celsius = struct.unpack_from("<2h", note, at)
            if -60 <= celsius <= 80 and abs(fahrenheit - (1.8 * celsius + 32)) <= 2:
                return int(celsius)
    return None


def serial_of(note: object) -> str:
    """Return the serial number in the maker note of a camera; "" where it is unknown or no plain text."""
    for start, (_, at, length, encoding) in _RECONYX.items():
        if isinstance(note, bytes) and note.startswith(start) and len(note) >= at + length:
            text = note[at : at + length].decode(encoding, "replace").partition("\0")[0].strip()
            if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]*", text):
                return text
    return ""


def _directory(data: bytes) -> Image.Exif:
    """Return the EXIF data of a photo; where it has none, those of the JPEG in it."""
    from PIL import Image

    kind = image_containers.detect_format(data)
    if kind in extras.PACKAGES:
        found = Image.Exif()
        if block := extras.exif_block(kind, data):
            found.load(block)
            return found
        if (inside := extras.jpeg_in(kind, data)) is None:
            return found
        data = inside
    with Image.open(io.BytesIO(data)) as picture:
        return picture.getexif()


def _text(value: object) -> str:
    return " ".join(str(value or "").replace("\0", " ").split())


def _time(when: str, zone: str) -> str:
    found = re.fullmatch(r"(\d{4}):(\d\d):(\d\d) (\d\d:\d\d:\d\d)", when)
    zone = zone or "Z"
    if found is None or not re.fullmatch(r"Z|[+-]\d\d:\d\d", zone):
        return ""
    taken = f"{found[1]}-{found[2]}-{found[3]}T{found[4]}{zone}"
    try:
        datetime.fromisoformat(taken)
    except ValueError:
        return ""
    return taken


def _degrees(
    where: Mapping[int, Any], side: int, number: int, plus: str, minus: str, most: int
) -> float | None:
    """Return an angle from degrees, minutes and seconds; None where it is missing or cannot be."""
    sign = {plus: 1, minus: -1}.get(_text(where.get(side)).upper())
    try:
        parts = [float(each) for each in where[number]]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    angle: float = sum(part / 60.0**place for place, part in enumerate(parts))
    if sign is None or not math.isfinite(angle) or not 0 <= angle <= most:
        return None
    return round(sign * angle, 7)
