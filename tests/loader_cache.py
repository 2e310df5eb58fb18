"""Loader caches (/etc/ld.so.cache) made by hand: glibc, sysdeps/generic/dl-cache.h."""

from __future__ import annotations

import struct


def cache_text(entries: list[tuple[bytes, bytes]], form: str) -> bytes:
    """As ldconfig writes it, in either format or in both."""
    strings, places = b"", []
    for pair in entries:
        for text in pair:
            places.append(len(strings))
            strings += text + b"\0"
    pairs = list(zip(places[::2], places[1::2], strict=True))

    def newer(base: int) -> bytes:
        rows = b"".join(struct.pack("<III4x8x", 0x303, base + name, base + path) for name, path in pairs)
        return b"glibc-ld.so.cache1.1" + struct.pack("<II20x", len(pairs), len(strings)) + rows

    size = len(newer(0))
    if form == "newer":
        return newer(size) + strings
    older = b"ld.so-1.7.0\0" + struct.pack("<I", len(pairs))
    if form == "older":
        return older + b"".join(struct.pack("<III", 0x303, *pair) for pair in pairs) + strings
    older += b"".join(struct.pack("<III", 3, 0, 0) for _ in pairs)
    return older + bytes(-len(older) % 8) + newer(size) + strings
