"""Where else the loader is told to look: search paths, its cache, its configuration, what is preloaded."""

from __future__ import annotations

import os

import pytest

from tests.unit.hook.container import Container, check_complete, check_refused


def test_search_folders(debian: Container) -> None:
    debian.file("/opt/a/libcuda.so.1", b"theirs")
    debian.file("/opt/b/libcuda.so.1", b"theirs")
    debian.write_plan(["search", "/opt/a"], ["search", "$ORIGIN/lib"], ["search", ""], ["search", "/not/there"])
    result = debian.create()
    check_complete(result)
    assert result.tree["/opt/a/libcuda.so.1"] == "ours cuda"
    assert result.tree["/opt/b/libcuda.so.1"] == "theirs"


@pytest.mark.parametrize(
    "text",
    [
        b"glibc-ld.so.cache1.1\x03\x00\x00\x00\x00libcuda.so.1\0/opt/cached/libcuda.so.1\0",
        b"\0\0@/opt/cached/libcuda.so.1\0",
        b"/opt/cached/libcuda.so.1",
        b"x" * 70000 + b"/opt/cached/libcuda.so.1\0",
        b"/y" * 50000 + b"/opt/cached/libnvidia-ml.so.1\0",
    ],
    ids=["usual", "behind a byte", "no end", "long text", "many slashes"],
)
def test_loader_cache_names_a_folder(debian: Container, text: bytes) -> None:
    debian.file("/opt/cached/libcuda.so.1", b"theirs")
    debian.file("/etc/ld.so.cache", text)
    result = debian.create()
    check_complete(result)
    assert result.tree["/opt/cached/libcuda.so.1"] == "ours cuda"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("ld.so.conf", b"/opt/drv"),
        ("ld.so.conf", b"include /etc/ld.so.conf.d/*.conf\n\t /opt/drv \t# the driver\n"),
        ("ld.so.conf.d/nvidia.conf", b"# here:\r\n/opt/drv\r\n"),
        (f"ld-musl-{os.uname().machine}.path", b"/lib:/opt/drv:/usr/lib"),
        ("ld.so.preload", b"/opt/drv/libcuda.so.9"),
        ("ld.so.preload", b"# /not/there.so\n/lib/libc.so.6:/opt/drv/libcuda.so.9 /x"),
        ("ld.so.preload", b"/opt/link.so\n"),
        ("ld.so.preload", b"\0/opt/drv/libcuda.so.9\0"),
    ],
)
def test_lists_of_the_loader(debian: Container, file: str, text: bytes) -> None:
    debian.file("/opt/drv/libcuda.so.9", b"theirs")
    debian.link("/opt/link.so", "drv/../drv/libcuda.so.9")
    debian.file(f"/etc/{file}", text)
    result = debian.create()
    check_complete(result)
    assert result.tree["/opt/drv/libcuda.so.9"] == "ours cuda"


@pytest.mark.parametrize("file", ["ld.so.conf", "ld.so.conf.d/x", "ld.so.preload"])
def test_list_that_is_no_list(debian: Container, file: str) -> None:
    debian.file(f"/etc/{file}", b"x " * 40000)
    check_refused(debian.create(), f"/etc/{file}", "64 KiB")
    (debian.root / "etc" / file).unlink()
    os.mkfifo(debian.root / "etc" / file)
    check_complete(debian.create())


@pytest.mark.parametrize("path", ["/opt/libcuda.so.9", "/opt/link.so", "/not/there.so", "/opt"])
def test_preloaded_by_the_environment(debian: Container, path: str) -> None:
    debian.file("/opt/libcuda.so.9", b"theirs")
    debian.link("/opt/link.so", "/opt/libcuda.so.9")
    debian.write_plan(["preload", path])
    result = debian.create()
    check_complete(result)
    assert result.tree["/opt/libcuda.so.9"] == ("theirs" if path in ("/not/there.so", "/opt") else "ours cuda")


def test_preloaded_by_way_of_proc(debian: Container) -> None:
    debian.file("/proc/x")
    debian.write_plan(["preload", "/proc/self/root/x.so"])
    check_refused(debian.create(before=[f"mount -t proc proc {debian.root}/proc"]), "preloaded", "/proc/self/root/x.so")


def test_loader_cache_that_is_too_big(debian: Container) -> None:
    with debian.file("/etc/ld.so.cache").open("wb") as cache:
        cache.truncate((64 << 20) + 1)
    check_refused(debian.create(), "/etc/ld.so.cache", "64 MiB")


def test_loader_cache_with_too_many_folders(debian: Container) -> None:
    for number in range(4100):
        (debian.root / f"opt/{number}").mkdir(parents=True)
    debian.file("/etc/ld.so.cache", b"".join(b"/opt/%d/libcuda.so.1\0" % number for number in range(4100)))
    check_refused(debian.create(), "more than 4096")


def test_loader_cache_of_slashes_takes_no_time(debian: Container) -> None:
    """Each slash begins a path, but of slashes in a row only the last."""
    debian.file("/etc/ld.so.cache", (b"/" * 4000 + b"libcuda.so.1\0") * 500)
    check_complete(debian.create())


def test_loader_cache_that_is_a_link_into_proc(debian: Container) -> None:
    """Reading some files takes something away: the host's kernel log, for one."""
    (debian.root / "proc").mkdir(exist_ok=True)
    debian.link("/etc/ld.so.cache", "/proc/version")
    result = debian.create(before=[f"mount -t proc proc {debian.root}/proc"])
    check_refused(result, "a link into /proc or /sys")


@pytest.mark.parametrize("kind", ["fifo", "folder", "link to /dev"])
def test_loader_cache_that_is_no_file(debian: Container, kind: str) -> None:
    path = debian.root / "etc/ld.so.cache"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("../../../../../../../dev/zero")
    check_complete(debian.create())


@pytest.mark.parametrize(
    ("file", "path"),
    [
        ("ld.so.preload", "opt/drv/libcuda.so.9"),
        ("ld.so.preload", "./libcuda.so.9"),
        ("ld.so.preload", "/opt/$PLATFORM/libcuda.so.9"),
        (f"ld-musl-{os.uname().machine}.path", "opt/drv"),
    ],
)
def test_list_with_a_relative_path(debian: Container, file: str, path: str) -> None:
    debian.file(f"/etc/{file}", f"/lib\n{path}\n".encode())
    check_refused(debian.create(), f"/etc/{file}", path, "write an absolute path")


def test_list_with_other_relative_paths(debian: Container) -> None:
    debian.file("/etc/ld.so.preload", b"/usr/$LIB/snoopy.so ./other.so libcuda.so.1")
    debian.file("/etc/ld.so.conf", b"include ld.so.conf.d/*.conf\nopt/drv\n")
    check_complete(debian.create())
