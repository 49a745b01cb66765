"""Identifies the format of a file by its first bytes."""

import re
import struct

from maskwire.pictures.errors import PictureError, unreadable

SUPPORTED = ("JPEG", "PNG", "WebP", "TIFF", "BMP", "GIF", "AVIF", "HEIC", "JPEG 2000", "PPM", "TGA", "ICO")
"""Formats that are decoded. JPEG includes MPO, PNG includes APNG, BMP includes DIB, PPM includes PGM, PBM and PFM."""

ENDINGS = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".ico", ".j2k", ".jp2", ".jpeg", ".jpg", ".jxl", ".pbm", ".pgm"),
    *(".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)
"""File name extensions by which image files are found in folders."""

_LISTED = "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000, PPM/PGM/PBM, TGA, ICO and (with pi-heif) HEIC"

EMPTY = f"the file is empty (0 bytes); send an image file: {_LISTED}"
"""Message for a file of 0 bytes."""

# The bytes that files of each kind begin with; the first match counts. CR2 is a special case of TIFF.
_MAGIC: tuple[tuple[str, tuple[bytes, ...]], ...] = (
    ("JPEG", (b"\xff\xd8\xff",)),
    ("PNG", (b"\x89PNG\r\n\x1a\n",)),
    ("GIF", (b"GIF87a", b"GIF89a")),
    ("BMP", (b"BM",)),
    ("JPEG 2000", (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")),
    ("a JPEG XL picture", (b"\0\0\0\x0cJXL \r\n\x87\n", b"\xff\x0a")),
    ("ICO", (b"\0\0\1\0",)),
    ("a camera's raw file (ORF)", (b"IIRO", b"IIRS", b"MMOR")),
    ("a camera's raw file (RW2)", (b"IIU\0",)),
    ("a camera's raw file (RAF)", (b"FUJIFILMCCD-RAW",)),
    ("a camera's raw file (X3F)", (b"FOVb",)),
    ("a camera's raw file (CR2)", (b"II*\0\x10\0\0\0CR",)),
    ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ("a JPEG XR picture", (b"II\xbc",)),
    ("a PDF document", (b"%PDF",)),
    ("an EPS or PostScript file", (b"%!PS", b"\xc5\xd0\xd3\xc6")),
    ("a Photoshop file (PSD)", (b"8BPS",)),
    ("a GIMP file (XCF)", (b"gimp xcf",)),
    ("a ZIP archive or a document in one", (b"PK\3\4",)),
    ("an empty ZIP archive", (b"PK\5\6",)),
    ("a gzip archive", (b"\x1f\x8b",)),
    ("a bzip2 archive", (b"BZh",)),
    ("an xz archive", (b"\xfd7zXZ\0",)),
    ("a Zstandard archive", (b"\x28\xb5\x2f\xfd",)),
    ("a 7-Zip archive", (b"7z\xbc\xaf\x27\x1c",)),
    ("a RAR archive", (b"Rar!",)),
    ("a NumPy array file (.npy)", (b"\x93NUMPY",)),
    ("an HDF5 file", (b"\x89HDF\r\n\x1a\n",)),
    ("a MATLAB file", (b"MATLAB 5.0",)),
    ("a FITS file", (b"SIMPLE  =",)),
    ("a Radiance HDR picture", (b"#?RADIANCE", b"#?RGBE")),
    ("an OpenEXR picture", (b"\x76\x2f\x31\x01",)),
    ("a DDS texture", (b"DDS ",)),
    ("a KTX texture", (b"\xabKTX ",)),
    ("a QOI picture", (b"qoif",)),
    ("a FLIF picture", (b"FLIF",)),
    ("a BPG picture", (b"BPG\xfb",)),
    ("an Apple icon (ICNS)", (b"icns",)),
    ("a DjVu document", (b"AT&TFORM",)),
    ("a Sun raster picture", (b"\x59\xa6\x6a\x95",)),
    ("an SGI picture", (b"\x01\xda\0", b"\x01\xda\1")),
    ("a Windows metafile (WMF)", (b"\xd7\xcd\xc6\x9a",)),
    ("a Windows metafile (EMF)", (b"\1\0\0\0",)),
    ("an old Office document", (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",)),
    ("a video (Matroska or WebM)", (b"\x1a\x45\xdf\xa3",)),
    ("a video (MPEG)", (b"\0\0\1\xba", b"\0\0\1\xb3")),
    ("a video (FLV)", (b"FLV\1",)),
    ("an Ogg audio or video file", (b"OggS",)),
    ("an MP3 audio file", (b"ID3",)),
    ("a FLAC audio file", (b"fLaC",)),
    ("a program", (b"\x7fELF", b"MZ")),
    ("an SQLite database", (b"SQLite format 3\0",)),
    ("a pickled Python object", (b"\x80\4\x95",)),
    ("a PAM picture", (b"P7\n",)),
    ("a PFM picture in colour", (b"PF",)),
)
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_DIB_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_BITS = (1, 4, 8, 16, 24, 32)


def identify(data: bytes) -> str:
    """Identifies the format of an image file.

    Returns:
        One of `SUPPORTED`.

    Raises:
        PictureError: EMPTY_IMAGE, or IMAGE_UNREADABLE, whose message says what the file is and what is supported.
    """
    if not data:
        raise PictureError("EMPTY_IMAGE", EMPTY)
    found = _describe(data)
    if found in SUPPORTED:
        return found
    raise unreadable(f"the file is {found}; supported formats: {_LISTED}")


def _describe(data: bytes) -> str:
    """Returns a format of `SUPPORTED`, or a description of any other file, such as "a PDF document"."""
    start = data[:4096]
    for name, magic in _MAGIC:
        if start.startswith(magic):
            return name
    if start[4:8] == b"ftyp":
        return _describe_iso(start)
    if start[:4] == b"RIFF":
        kinds = {b"WEBP": "WebP", b"AVI ": "a video (AVI)", b"WAVE": "a WAVE audio file"}
        return kinds.get(start[8:12], "a RIFF file that is no picture")
    if start[:1] == b"P" and re.match(rb"P[1-6f]\s", start):
        return "PPM"
    if start[128:132] == b"DICM":
        return "a DICOM file"
    if start[4:8] in (b"mdat", b"moov", b"wide", b"free"):
        return "a video (QuickTime)"
    if start[257:262] == b"ustar":
        return "a tar archive"
    if _is_dib(start):
        return "BMP"
    if start[:4] == b"\0\0\2\0" and start[4:6] != b"\0\0":  # these two bytes are 0 in a TGA file
        return "a Windows cursor"
    unknown = f"of an unknown format (it begins with the bytes {start[:8].hex(' ')})"
    return _describe_text(start) or ("TGA" if _is_tga(data) else unknown)


def _describe_iso(start: bytes) -> str:
    """Describes a file in the ISO base media container (ISO/IEC 14496-12) by its major and compatible brands."""
    (size,) = struct.unpack_from(">I", start)
    major, also = start[8:12], {start[place : place + 4] for place in range(16, min(size, 512), 4)}
    if major in _AVIF_BRANDS or (major in (b"mif1", b"msf1") and also & _AVIF_BRANDS):
        return "AVIF"
    if major in _HEIC_BRANDS:
        return "HEIC"
    if major == b"crx ":
        return "a camera's raw file (CR3)"
    if major[:3] in (b"jp2", b"jpx", b"jpm"):
        return "JPEG 2000"
    if major[:3] == b"M4A":
        return "an M4A audio file"
    return "a video (MP4 or QuickTime)"


def _is_dib(start: bytes) -> bool:
    """Returns whether a file is a device-independent bitmap, that is, a BMP without its file header."""
    if len(start) < 16:
        return False
    header = struct.unpack_from("<I", start)[0]
    planes, bits = struct.unpack_from("<HH", start, 8 if header == 12 else 12)
    return header in _DIB_HEADERS and planes == 1 and bits in _BITS


def _is_tga(data: bytes) -> bool:
    """Returns whether all fields of a TGA header are valid; the format has no magic number."""
    if len(data) < 18:
        return False
    mapped, kind, depth = data[1], data[2], data[16]
    width, height = struct.unpack_from("<HH", data, 12)
    return (
        mapped in (0, 1)
        and kind in (1, 2, 3, 9, 10, 11)
        and depth in (1, 8, 15, 16, 24, 32)
        and width > 0
        and height > 0
        and (kind in (1, 9)) <= (mapped == 1)
    )


def _describe_text(start: bytes) -> str:
    """Describes a text file; returns an empty string for anything else."""
    for encoding in ("utf-8-sig", "utf-16") if start[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig",):
        try:
            # The end may be in the middle of a multi-byte character.
            text = start.decode(encoding) if len(start) < 4096 else start[:-4].decode(encoding, "ignore")
            break
        except UnicodeDecodeError:
            continue
    else:
        return ""
    if any(ord(char) < 32 and char not in "\t\n\r\f\x1b" for char in text):
        return ""
    folded = text.lower().lstrip()
    if "<svg" in folded:
        return "an SVG drawing"
    if folded.startswith(("<!doctype html", "<html", "<head", "<body")) or "<html" in folded:
        return "an HTML page"
    if folded.startswith("<"):
        return "an XML document"
    if folded.startswith("data:"):
        return "a data URI; decode its base64 first"
    if folded.startswith(("http://", "https://", "file://", "s3://")):
        return "an address; fetch the file first"
    if folded.startswith("version https://git-lfs"):
        return "a Git LFS pointer; fetch the file itself"
    if folded.startswith(("{", "[")):
        return "JSON text"
    if len(text) >= 64 and re.fullmatch(r"[A-Za-z0-9+/_=\s-]+", text) and " " not in text.strip():
        return "base64 text; decode it first"
    return "text"
