"""The image's ld.so.cache: whatever its loader takes from it is covered, or the container is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.loader_cache import cache_text
from tests.unit.hook.container import HOME, Container, check_complete, check_refused


@pytest.mark.parametrize("form", ["newer", "older", "both"])
@pytest.mark.parametrize("path", [b"/opt/other.so", b"opt/libcuda.so.1", b"libcuda.so.1", b"", b"/"])
def test_loader_cache_that_leads_to_another_name(debian: Container, form: str, path: bytes) -> None:
    """The loader takes whatever path stands there."""
    entries = [(b"libc.so.6", f"{HOME}/libc.so.6".encode()), (b"libcuda.so.01", path)]
    debian.file("/etc/ld.so.cache", cache_text(entries, form))
    check_refused(debian.create(), "/etc/ld.so.cache", "for libcuda.so.01", "run ldconfig")


@pytest.mark.parametrize("form", ["newer", "older", "both"])
def test_loader_cache_of_ldconfig(debian: Container, form: str) -> None:
    debian.file("/opt/cached/libcuda.so.1", b"theirs")
    entries = [(b"libcuda.so.1", b"/opt/cached/libcuda.so.1"), (b"libx.so", b"x.so")]
    debian.file("/etc/ld.so.cache", cache_text(entries, form))
    result = debian.create()
    check_complete(result)
    assert result.tree["/opt/cached/libcuda.so.1"] == "ours cuda"


@pytest.mark.parametrize("form", ["newer", "older", "both"])
@pytest.mark.parametrize("count", [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\2\0\0\0"])
def test_loader_cache_that_is_damaged(debian: Container, soak: bool, form: str, count: bytes) -> None:
    text = cache_text([(b"libcuda.so.1", b"/opt/cached/libcuda.so.1")], form)
    at = 20 if form == "newer" else 12
    for cut in range(0, len(text), 1 if soak else 19):
        debian.file("/etc/ld.so.cache", (text[:at] + count + text[at + 4 :])[:cut])
        result = debian.create(walk=False)
        if result.code:
            check_refused(result, "/etc/ld.so.cache")


def test_loader_cache_of_long_paths_takes_no_time(debian: Container) -> None:
    """Thousands of paths in each text, of which none is a driver's."""
    texts = (b"a/" * 4096)[:-2] + b"\0"
    debian.file("/etc/ld.so.cache", texts * 1000 + b"/opt/cached/libcuda.so.1\0")
    debian.file("/opt/cached/libcuda.so.1", b"theirs")
    result = debian.create()
    check_complete(result)
    assert result.tree["/opt/cached/libcuda.so.1"] == "ours cuda"


@pytest.mark.parametrize("kind", ["lists", "links"])
def test_look_ups_without_end(shipped_hook: Path, tmp_path: Path, kind: str) -> None:
    """The runtime would wait for half a minute, and then say nothing of the reason."""
    container = Container(shipped_hook, tmp_path)
    if kind == "lists":
        text = container.file("/etc/ld.so.conf.d/0.conf", b"".join(b"/%d\n" % number for number in range(9000)))
        for number in range(1, 600):
            text.with_name(f"{number}.conf").symlink_to(text.name)
    else:
        for number in range(1500):
            container.file(f"/usr/local/cuda/compat/{number}")
            container.link(f"/usr/local/cuda{number}", "cuda")
    check_refused(container.create(walk=False), "can't be checked", "more than 2 seconds")
