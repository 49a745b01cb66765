"""Small image files that are long work, or much memory."""

import struct
import zlib


def webp(side: int) -> bytes:
    """Returns a lossless WebP of one colour in some 40 bytes: its pixels take no bits at all."""
    bits = [(side - 1, 14), (side - 1, 14), (0, 1), (0, 3), (0, 1), (0, 1), (0, 1)] + [(1, 4)] * 5
    number, at = 0, 0
    for value, count in bits:
        number |= value << at
        at += count
    body = b"\x2f" + number.to_bytes(-(-at // 8) + 1, "little")
    body += bytes(len(body) % 2)
    chunk = b"VP8L" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def bmp(width: int, number: int) -> bytes:
    """Returns a BMP of a line of so many pixels, of which its run lengths hold one; the number makes it unique."""
    runs = b"\x01\x07\x00\x00\x00\x01"
    head = struct.pack("<IiiHHIIiiII", 40, width, 1, 1, 8, 1, len(runs), 0, 0, 256, 0)
    start = 14 + len(head) + 1024
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + head + bytes(1024) + runs + b"%d" % number


def jpeg(side: int, scans: int) -> bytes:
    """Returns a grey progressive JPEG with so many scans that change nothing, each a pass over all blocks."""
    blocks = (-(-side // 8)) ** 2
    runs = -(-blocks // 32767)
    ends = "".join("0" + "1" * 14 for _ in range(runs))  # each the end of 32,767 blocks
    ends += "1" * (-len(ends) % 8)
    scan = int(ends, 2).to_bytes(len(ends) // 8, "big").replace(b"\xff", b"\xff\x00")
    tables = b"\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([16] * 64)
    frame = b"\xff\xc2" + struct.pack(">HBHHBBBB", 11, 8, side, side, 1, 1, 0x11, 0)
    codes = b"\xff\xc4" + struct.pack(">HB", 20, 0x00) + bytes([1] + [0] * 15) + b"\x00"
    codes += b"\xff\xc4" + struct.pack(">HB", 21, 0x10) + bytes([1, 1] + [0] * 14) + b"\xe0\x00"
    first = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 0, 0, 0) + bytes(blocks // 8 + 1)
    more = b"\xff\xda" + struct.pack(">HBBBBBB", 8, 1, 1, 0, 1, 1, 0) + scan
    return b"\xff\xd8" + tables + frame + codes + first + more * scans + b"\xff\xd9"


def png(side: int, number: int) -> bytes:
    """Returns a PNG of transparent pixels, four bytes each; the number makes it unique."""
    packer = zlib.compressobj(1)
    row = bytes(1 + 4 * side)
    pixels = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    text = _chunk(b"tEXt", b"Number\x00%d" % number)
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + text + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
