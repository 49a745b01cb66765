"""Which format a file is in, by its first bytes."""

import re
import struct

from maskwire.pictures.errors import PictureError, unreadable

TAKEN = ("JPEG", "PNG", "WebP", "TIFF", "BMP", "GIF", "AVIF", "HEIC", "JPEG 2000", "PPM", "TGA", "ICO")
"""Formats that are read. JPEG includes MPO, PNG includes APNG, BMP includes DIB, PPM includes PGM, PBM and PFM."""

LISTED = "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000, PPM/PGM/PBM, TGA, ICO and (with pi-heif) HEIC"
"""The same for people."""

EMPTY = f"the file is empty (0 bytes); send an image file: {LISTED}"

# The first match counts. Text formats are looked at behind these.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\0\0\1\0", "ICO"),
    # Raw files of cameras that do not call themselves TIFF.
    (b"IIRO", "a camera's raw file (ORF)"),
    (b"IIRS", "a camera's raw file (ORF)"),
    (b"MMOR", "a camera's raw file (ORF)"),
    (b"IIU\0", "a camera's raw file (RW2)"),
    (b"FUJIFILMCCD-RAW", "a camera's raw file (RAF)"),
    (b"FOVb", "a camera's raw file (X3F)"),
    (b"II*\0\x10\0\0\0CR", "a camera's raw file (CR2)"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"II\xbc", "a JPEG XR picture"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "an EPS or PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "an EPS or PostScript file"),
    (b"8BPS", "a Photoshop file (PSD)"),
    (b"gimp xcf", "a GIMP file (XCF)"),
    (b"PK\3\4", "a ZIP archive or a document in one"),
    (b"PK\5\6", "an empty ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x93NUMPY", "a NumPy array file (.npy)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"SIMPLE  =", "a FITS file"),
    (b"#?RADIANCE", "a Radiance HDR picture"),
    (b"#?RGBE", "a Radiance HDR picture"),
    (b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    (b"DDS ", "a DDS texture"),
    (b"\xabKTX ", "a KTX texture"),
    (b"qoif", "a QOI picture"),
    (b"FLIF", "a FLIF picture"),
    (b"BPG\xfb", "a BPG picture"),
    (b"icns", "an Apple icon (ICNS)"),
    (b"AT&TFORM", "a DjVu document"),
    (b"\x59\xa6\x6a\x95", "a Sun raster picture"),
    (b"\x01\xda\0", "an SGI picture"),
    (b"\x01\xda\1", "an SGI picture"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile (WMF)"),
    (b"\1\0\0\0", "a Windows metafile (EMF)"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document"),
    (b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)"),
    (b"\0\0\1\xba", "a video (MPEG)"),
    (b"\0\0\1\xb3", "a video (MPEG)"),
    (b"FLV\1", "a video (FLV)"),
    (b"OggS", "an Ogg audio or video file"),
    (b"ID3", "an MP3 audio file"),
    (b"fLaC", "a FLAC audio file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x80\4\x95", "a pickled Python object"),
    (b"P7\n", "a PAM picture"),
    (b"PF", "a PFM picture in colour"),
)
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_DIB_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_BITS = (1, 4, 8, 16, 24, 32)


def identify(data: bytes) -> str:
    """The format of an image file, one of `TAKEN`.

    Raises:
        PictureError: EMPTY_IMAGE, or IMAGE_UNREADABLE: what the file is instead, and what is taken.
    """
    if not data:
        raise PictureError("EMPTY_IMAGE", EMPTY)
    found = _found(data)
    if found in TAKEN:
        return found
    raise unreadable(f"the file is {found}; these formats are taken: {LISTED}")


def _found(data: bytes) -> str:
    start = data[:4096]
    for magic, name in _MAGIC:
        if start.startswith(magic):
            return name
    if start[4:8] == b"ftyp":
        return _boxed(start)
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
    if start[:4] == b"\0\0\2\0" and start[4:6] != b"\0\0":  # where TGA has zeros
        return "a Windows cursor"
    return _text(start) or ("TGA" if _is_tga(data) else _unknown(start))


def _boxed(start: bytes) -> str:
    """The kind of a file in ISO's container: its own brand, then those that it says it is compatible with."""
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
    """Whether it is a bitmap without the header of a file."""
    if len(start) < 16:
        return False
    header = struct.unpack_from("<I", start)[0]
    planes, bits = struct.unpack_from("<HH", start, 8 if header == 12 else 12)
    return header in _DIB_HEADERS and planes == 1 and bits in _BITS


def _is_tga(data: bytes) -> bool:
    """TGA has no mark at the beginning: all fields of its header must make sense."""
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


def _text(start: bytes) -> str:
    """What kind of text it is; empty if it is none."""
    for encoding in ("utf-8-sig", "utf-16") if start[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig",):
        try:
            # The end may be in the middle of a character.
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


def _unknown(start: bytes) -> str:
    return f"of an unknown format (it begins with the bytes {start[:8].hex(' ')})"
