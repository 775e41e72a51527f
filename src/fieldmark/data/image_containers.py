"""Read the structure of an image file without decoding it: format, size, orientation, completeness.

Decoders are lenient about truncated files: several return an image with a grey lower half. A training
set must not contain such images, so ends are checked here.

The layouts follow ITU-T T.81 (JPEG), the specifications of PNG and GIF89a, and RFC 9649 (WebP). Every
function accepts any bytes; what ends too early raises `ImageRejected(TRUNCATED)`, `struct.error` or
`IndexError`, which `images` converts.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, NoReturn

from fieldmark.utils.errors import ImageRejected, RejectReason

# The supported formats, by their first bytes. No other decoder is given any bytes.
_READ = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"RIFF....WEBP", "WEBP"),
    (rb"BM", "BMP"),
    (rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "TIFF"),
    (rb"P[1-6][\s#]", "PNM"),
    (rb"....ftypavi[fs]|....ftypmi[fa][1f].{4}(....)*?avi[fs]", "AVIF"),
    (rb"....ftyp(hei[cxms]|hev[cx]|mif1|msf1)", "HEIC"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "JXL"),
    (rb"....ftypcrx |II\x1a\0\0\0HEAPCCDR|FUJIFILMCCD-RAW|II(RO|RS|U\0)", "RAW"),
)

# Image formats that are not supported: the user is asked to convert them.
_UNREAD = (
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"8BPS", "Photoshop"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"\0\0[\x01\x02]\0[^\0]\0", "Windows icon"),
    (rb"qoif", "QOI"),
    (rb"\x01\xda[\0\x01][\x01\x02]", "SGI"),
    (rb"\x0a[\0-\x05]\x01[\x01\x02\x04\x08]", "PCX"),
    (rb"BLP[12]", "BLP"),
    (rb"DDS ", "DDS"),
    (rb"....[\x11\x12]\xaf", "FLI"),
    (rb"P7\s|P[Ff]\s", "PAM or PFM"),
    (rb"\x76\x2f\x31\x01", "OpenEXR"),
    (rb"#\?RADIANCE", "Radiance HDR"),
    (rb"gimp xcf", "GIMP"),
    (rb"\s*(<\?xml[^>]*>\s*)?<svg", "SVG"),
)
_ORIENTATION_TAG = 0x0112
_CUT = "the file ends before the image does"
_SHORT = "the file is shorter than its header says"


def reject(reason: RejectReason, detail: str) -> NoReturn:
    """Raise `ImageRejected`."""
    raise ImageRejected(reason, detail)


def detect_format(data: bytes) -> str:
    """Detect the format of a file by its first bytes: one of `_READ`; a raw file like a TIFF is RAW.

    Raises:
        ImageRejected: EMPTY, UNSUPPORTED (another image format) or NOT_AN_IMAGE.
    """
    if not data:
        reject(RejectReason.EMPTY, "no bytes in it")
    if found := _named(data, _READ):
        return "RAW" if found == "TIFF" and _is_raw(data) else found
    if found := _named(data, _UNREAD):
        reject(RejectReason.UNSUPPORTED, f"{found} is not read; convert it to JPEG or PNG")
    reject(RejectReason.NOT_AN_IMAGE, "these bytes do not start like any image format")


def _named(data: bytes, formats: Sequence[tuple[bytes, str]]) -> str | None:
    return next((name for pattern, name in formats if re.match(pattern, data, re.DOTALL)), None)


def exif_orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, in a TIFF structure; 1 where it is missing or invalid.

    The structure may have the leading `Exif\\0\\0`.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, length = struct.unpack_from(order + "HHI", exif, entry)
            if tag == _ORIENTATION_TAG and length == 1 and kind in (3, 4):
                value = struct.unpack_from(order + ("H" if kind == 3 else "I"), exif, entry + 8)[0]
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass  # photos with damaged metadata and intact pixels are common
    return 1


_SUBFILES, _PHOTOMETRIC, _DNG = 330, 262, 50706
_SENSOR = (32803, 34892)  # values of a sensor behind its colour filters, or linear ones, in _PHOTOMETRIC
_MOST_DIRECTORIES = 12


def _is_raw(data: bytes) -> bool:
    """Return whether a TIFF structure is a camera's raw file: a DNG, or one with the values of a sensor."""
    if data[8:10] == b"CR":  # Canon's CR2
        return True
    order = "<" if data[:2] == b"II" else ">"
    (first,) = struct.unpack_from(order + "I", data.ljust(8, b"\0"), 4)
    left, seen = [first], set[int]()
    while left and len(seen) < _MOST_DIRECTORIES:
        if (start := left.pop()) in seen or not start:
            continue
        seen.add(start)
        try:
            (count,) = struct.unpack_from(order + "H", data, start)
            for entry in range(start + 2, start + 2 + 12 * count, 12):
                tag, kind, length, value = struct.unpack_from(order + "HHII", data, entry)
                if tag == _DNG:
                    return True
                if tag == _PHOTOMETRIC and struct.unpack_from(order + "H", data, entry + 8)[0] in _SENSOR:
                    return True
                if tag == _SUBFILES and kind in (4, 13):
                    many = min(length, _MOST_DIRECTORIES)
                    left += struct.unpack_from(f"{order}{many}I", data, entry + 8 if many == 1 else value)
            left += struct.unpack_from(order + "I", data, start + 2 + 12 * count)
        except struct.error:
            continue
    return False


def boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of the content of each outer box (ISO/IEC 14496-12).

    Raises:
        ImageRejected: TRUNCATED (a box ends behind the file), CORRUPT (one without a length).
    """
    at = 0
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, start)
            start += 8
        end = len(data) if size == 0 else at + size
        if end > len(data):
            reject(RejectReason.TRUNCATED, _CUT)
        if end < start:
            reject(RejectReason.CORRUPT, "a box without a length")
        yield name, start, end
        at = end


_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def jpeg_xl(data: bytes) -> tuple[int, int, int]:
    """Return width and height as stored, and the orientation, of a JPEG XL (ISO/IEC 18181-1).

    Raises:
        ImageRejected: there is no image in it, or a box ends behind the file.
    """
    if data[:2] != b"\xff\x0a":
        parts = {b"jxlc": 0, b"jxlp": 4}  # a part begins with its number
        found = [data[start + parts[name] : end] for name, start, end in boxes(data) if name in parts]
        data = b"".join(found)
    if data[:2] != b"\xff\x0a":
        reject(RejectReason.CORRUPT, "a JPEG XL without an image in it")
    bits, at = int.from_bytes(data[2:18].ljust(16, b"\0"), "little"), 0

    def read(count: int) -> int:
        nonlocal at
        value = bits >> at & (1 << count) - 1
        at += count
        return value

    def side(small: int) -> int:
        return 8 * (read(5) + 1) if small else read((9, 13, 18, 30)[read(2)]) + 1

    small = read(1)
    height = side(small)
    ratio = read(3)
    if ratio:
        over, under = _RATIOS[ratio - 1]
        width = height * over // under
    else:
        width = side(small)
    with_orientation = not read(1) and read(1)
    return width, height, read(3) + 1 if with_orientation else 1


class Jpeg(NamedTuple):
    """The structure of a JPEG."""

    width: int  # pixels as stored, before orientation
    height: int
    components: int  # 1 grey, 3 colour, 4 CMYK or YCCK
    orientation: int  # EXIF, 1 to 8
    adobe: bool  # whether there is an Adobe marker: CMYK is then stored inverted
    scans: int  # 0 where only the header was read
    one_pass: bool  # whether one scan has all colours, row by row; False where only the header was read


_JPEG_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
# Baseline, extended and progressive, the last two also with arithmetic coding.
_JPEG_READ = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))
_JPEG_BARE = frozenset((0x00, 0x01, *range(0xD0, 0xD9)))  # markers without a length
# FF00 is a stuffed byte, FFD0-D7 are restarts.
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")


def jpeg(data: bytes, *, whole: bool) -> Jpeg:
    """Read the markers of a JPEG: up to its size, or (`whole`) up to its end.

    Raises:
        ImageRejected: UNSUPPORTED (lossless, 12-bit ...), TRUNCATED (no end marker), CORRUPT.
    """
    frame: tuple[int, int, int] | None = None
    kind, in_scan = 0, 0
    orientation, adobe, scans = 1, False, 0
    for marker, at, end in _jpeg_segments(data):
        if marker in _JPEG_FRAMES and frame is None:
            frame, kind = _jpeg_frame(data, marker, at), marker
            if not whole:
                break
        elif marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0" and orientation == 1:
            orientation = exif_orientation(data[at + 10 : end])
        elif marker == 0xEE and data[at + 4 : at + 9] == b"Adobe":
            adobe = True
        elif marker == 0xDA:
            scans, in_scan = scans + 1, data[at + 4]
    if frame is None or (whole and not scans):
        reject(RejectReason.CORRUPT, "a JPEG without an image in it")
    one_pass = scans == 1 and in_scan == frame[2] and kind in (0xC0, 0xC1)
    return Jpeg(*frame, orientation, adobe, scans, one_pass)


def strip_jpeg_metadata(data: bytes) -> bytes:
    """Remove stray bytes, profiles and metadata from a JPEG, but not JFIF and Adobe, which define colours."""
    metadata = {*range(0xE1, 0xEE), 0xEF, 0xFE}
    kept = (data[at:end] for marker, at, end in _jpeg_segments(data) if marker not in metadata)
    return b"".join((b"\xff\xd8", *kept, b"\xff\xd9"))


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment up to the end marker; scans with their data."""
    at = 2
    while True:
        at = data.find(b"\xff", at)
        if at < 0:
            reject(RejectReason.TRUNCATED, _CUT)
        marker = data[at + 1]
        if marker == 0xD9:
            return
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            end = at + 2 + max(length, 2)
            if marker == 0xDA:
                found = _END_OF_SCAN.search(data, end)
                if found is None:
                    reject(RejectReason.TRUNCATED, _CUT)
                end = found.start()
            yield marker, at, end
            at = end


def _jpeg_frame(data: bytes, marker: int, at: int) -> tuple[int, int, int]:
    precision, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
    if marker not in _JPEG_READ or precision != 8:
        reject(RejectReason.UNSUPPORTED, f"a JPEG of kind SOF{marker - 0xC0}, {precision} bits")
    if components not in (1, 3, 4):
        reject(RejectReason.UNSUPPORTED, f"a JPEG with {components} components")
    if not (width and height):
        reject(RejectReason.CORRUPT, "a JPEG that does not give its size")
    return width, height, components


class Shape(NamedTuple):
    """The size of a PNG or WebP in pixels as stored, and its EXIF orientation."""

    width: int
    height: int
    orientation: int


def png(data: bytes, *, whole: bool) -> Shape:
    """Read the chunks of a PNG; with `whole` also verify the checksums of critical chunks.

    Raises:
        ImageRejected: TRUNCATED (no IEND), CORRUPT (a checksum is wrong, or no header).
    """
    at, exif, view = 8, b"", memoryview(data)
    if data[12:16] != b"IHDR":
        reject(RejectReason.CORRUPT, "a PNG without its header")
    width, height = struct.unpack_from(">II", data, 16)
    while whole or at + 12 <= len(data):
        if at + 12 > len(data):
            reject(RejectReason.TRUNCATED, _CUT)
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if whole and end + 4 > len(data):
            reject(RejectReason.TRUNCATED, _CUT)
        checksum, critical = view[end : end + 4], not name[0] & 0x20
        if whole and critical and zlib.crc32(view[at + 4 : end]) != int.from_bytes(checksum, "big"):
            reject(RejectReason.CORRUPT, f"the checksum of a {name.decode('latin-1')} chunk is wrong")
        if name == b"eXIf":
            exif = data[at + 8 : end]
        if name == b"IEND":
            break
        at = end + 4
    return Shape(width, height, exif_orientation(exif))


def webp(data: bytes) -> Shape:
    """Read the chunks of a WebP: its size too, since Pillow allocates the whole image to open the file.

    Raises:
        ImageRejected: TRUNCATED (shorter than its header says), CORRUPT (no image in it).
    """
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 > len(data):
        reject(RejectReason.TRUNCATED, _SHORT)
    shape, exif, at = None, b"", 12
    while at + 8 <= size + 8:
        name, length = struct.unpack_from("<4sI", data, at)
        if name in (b"VP8X", b"VP8 ", b"VP8L") and shape is None:
            shape = _webp_size(data, name, at + 8)
        if name == b"EXIF" and not exif:
            exif = data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    if shape is None:
        reject(RejectReason.CORRUPT, "a WebP without an image in it")
    return Shape(*shape, exif_orientation(exif))


def _webp_size(data: bytes, name: bytes, at: int) -> tuple[int, int]:
    if name == b"VP8X":  # 24 bits each, less one
        low_w, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, at + 4)
        return (low_w | high_w << 16) + 1, (low_h | high_h << 16) + 1
    if name == b"VP8L":  # a signature byte, then 14 bits each, less one
        (bits,) = struct.unpack_from("<I", data, at + 1)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, at + 6)
    return width & 0x3FFF, height & 0x3FFF


def check_gif_end(data: bytes) -> None:
    """Read the blocks of a GIF up to its trailer; `ImageRejected` without it, or for an unknown block."""
    at = 13 + _gif_palette(data[10])
    while True:
        kind = data[at]
        if kind == 0x3B:
            return
        if kind == 0x00:  # a stray terminator, which some encoders write
            at += 1
            continue
        if kind == 0x21:  # an extension: a label, then sub-blocks
            at += 2
        elif kind == 0x2C:  # an image: position, palette, code size, then sub-blocks
            at += 11 + _gif_palette(data[at + 9])
        else:
            reject(RejectReason.CORRUPT, f"a GIF block of unknown kind {kind:#04x}")
        while data[at]:
            at += 1 + data[at]
        at += 1


def _gif_palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def check_bmp_end(data: bytes) -> None:
    """Check the length of a BMP against what its header says; `ImageRejected` where it is shorter."""
    (size,) = struct.unpack_from("<I", data, 2)
    if size > len(data):
        reject(RejectReason.TRUNCATED, _SHORT)
