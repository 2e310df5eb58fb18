"""Looking for a libcuda in an image: paths that lead astray, and the loader's cache."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runai_runtime.compat import CACHE_FLAGS, CACHE_MAGIC, MOST_CACHE, cached_folders, folders_in, home_of, stamp
from runai_runtime.rootfs import MOST_LINKS, look_up, real_path
from tests.unit.libraries import compiled, functions, linked

MACHINE = os.uname().machine
FLAGS = CACHE_FLAGS[MACHINE]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    root = tmp_path / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").write_text("file")
    return root


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("/a/b/file", "/a/b/file"),
        ("a//b/./file/", "/a/b/file"),
        ("/a/../../../a/b/../b/file", "/a/b/file"),
        ("/up/a/b/file", "/a/b/file"),
        ("/absolute/file", "/a/b/file"),
        ("/chain/file", "/a/b/file"),
        ("/a/to-b/file", "/a/b/file"),
        ("/absolute/..", "/a"),
        ("/", "/"),
        ("/..", "/"),
    ],
)
def test_where_a_path_leads(root: Path, path: str, leads_to: str) -> None:
    (root / "up").symlink_to("../../../..")
    (root / "absolute").symlink_to("/a/b")
    (root / "chain").symlink_to("absolute")
    (root / "a/to-b").symlink_to("b")
    assert real_path(str(root), path) == leads_to


def test_a_path_that_gets_too_long(root: Path) -> None:
    """By links to links; each step would take longer than the one before."""
    name, folder = "x" * 255, os.open(root, os.O_PATH)
    for depth in range(40):
        os.mkdir(name, dir_fd=folder)
        below = os.open(name, os.O_PATH, dir_fd=folder)
        os.close(folder)
        folder = below
        (root / f"link{depth}").symlink_to(f"{f'link{depth - 1}' if depth else ''}/{name}")
    os.close(folder)
    assert len(real_path(str(root), "/link14")) == 15 * 256
    with pytest.raises(OSError, match="too long"):
        look_up(str(root), "/link16")
    leftover = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="too long"):
        look_up(str(root), "/link30")
    assert set(os.listdir("/proc/self/fd")) == leftover


def test_what_a_path_has_passed(root: Path) -> None:
    (root / "c").mkdir()
    (root / "c/link").symlink_to("/a/b")
    with look_up(str(root), "/c/link/file") as place:
        assert place.passed == {"/", "/c", "/a", "/a/b", "/a/b/file"}
        assert stat.S_ISREG(os.fstat(place.fd).st_mode)


@pytest.mark.parametrize(
    "path",
    [
        *("/nowhere", "/a/b/file/below", "/out", "/out-relative", "/circle", "/self/x", "/long", "/proc/self/root"),
        *("/a/" + "../a/" * 500, "/" + "x" * 300, "/a\0b", "/\ud800"),
    ],
)
def test_a_path_that_leads_nowhere(root: Path, path: str) -> None:
    (root / "out").symlink_to(root.parent / "outside/secret")
    (root / "out-relative").symlink_to("../outside/secret")
    (root / "circle").symlink_to("circle2")
    (root / "circle2").symlink_to("circle")
    (root / "self").symlink_to("self/self")
    (root / "long").symlink_to("l0")
    for number in range(MOST_LINKS):
        (root / f"l{number}").symlink_to(f"l{number + 1}" if number < MOST_LINKS - 1 else "a")
    before = os.listdir("/proc/self/fd")
    with pytest.raises((OSError, ValueError)):
        look_up(str(root), path)
    assert os.listdir("/proc/self/fd") == before


NAMES = st.sampled_from(["a", "b", "c", "..", "."])
PATHS = st.tuples(st.booleans(), st.lists(NAMES, min_size=1, max_size=6)).map(
    lambda parts: "/" * parts[0] + "/".join(parts[1])
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(PATHS, PATHS, max_size=6), PATHS)
def test_no_tree_of_links_leads_out_of_the_root(links: dict[str, str], path: str) -> None:
    """What is found is what the same tree shows to a process whose root it is."""
    with tempfile.TemporaryDirectory() as top:
        root = os.path.join(top, "root")
        os.makedirs(os.path.join(root, "a/b/c"))
        for name, target in links.items():
            place = os.path.normpath(root + os.path.normpath("/" + name))
            try:
                os.makedirs(os.path.dirname(place), exist_ok=True)
                os.symlink(target, place)
            except OSError:
                continue
        try:
            found = real_path(root, path)
        except OSError:
            found = ""
        assert found == as_its_root(root, path)


def as_its_root(root: str, path: str) -> str:
    """What the kernel makes of PATH in a process whose root ROOT is; "" for nowhere."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chroot(root)
            os.chdir("/")
            # In a chroot getcwd counts from its root; each thing that there is here is a folder.
            os.chdir(path)
            os.write(sender, os.getcwd().encode())
        finally:
            os._exit(0)
    os.close(sender)
    os.waitpid(child, 0)
    with os.fdopen(receiver, "rb") as pipe:
        return pipe.read().decode()


# ---- the loader's cache ----------------------------------------------------------------------------------------


def cache(*entries: tuple[int, str, str], before: bytes = b"", count: int | None = None) -> bytes:
    """A cache as ldconfig writes it: flags, name, path."""
    table, strings = b"", b""
    start = 48 + 24 * len(entries)
    for flags, name, path in entries:
        key = start + len(strings)
        strings += name.encode() + b"\0"
        table += struct.pack("<iIIIQ", flags, key, start + len(strings), 0, 0)
        strings += path.encode() + b"\0"
    header = CACHE_MAGIC + struct.pack("<IIB3xI12x", len(entries) if count is None else count, len(strings), 0, 0)
    return before + header + table + strings


ENTRIES = [
    (FLAGS, "libc.so.6", "/lib/libc.so.6"),
    (0x3, "libcuda.so.1", "/usr/lib32/libcuda.so.1"),
    (FLAGS, "libcuda.so.1", "/opt/one/libcuda.so.1"),
    (FLAGS, "libcuda.so.1.1", "/opt/other/libcuda.so.1.1"),
    (FLAGS, "libcuda.so.1", "/opt/two/libcuda.so.1"),
    (FLAGS, "libcuda.so.1", "relative/libcuda.so.1"),
]


def test_a_cache() -> None:
    assert list(folders_in(cache(*ENTRIES))) == ["/opt/one", "/opt/two"]
    assert list(folders_in(cache(*ENTRIES, count=3))) == ["/opt/one"]
    assert list(folders_in(cache(*ENTRIES, count=2**32 - 1)))[:2] == ["/opt/one", "/opt/two"]


def test_the_cache_of_an_image(root: Path) -> None:
    assert list(cached_folders(str(root))) == []
    (root / "etc").mkdir()
    file = root / "etc/ld.so.cache"
    for data, folders in (
        (cache(*ENTRIES), ["/opt/one", "/opt/two"]),
        (cache(*ENTRIES, before=b"ld.so-1.7.0\0" + b"\0" * 100), ["/opt/one", "/opt/two"]),
        (b"", []),
        (CACHE_MAGIC, []),
        (b"libcuda.so.1\0" * 100, []),
        (cache(*ENTRIES) + b"\0" * MOST_CACHE, []),
    ):
        file.write_bytes(data)
        assert list(cached_folders(str(root))) == folders
    file.unlink()
    os.mkfifo(file)
    assert list(cached_folders(str(root))) == []


def test_a_cache_by_ldconfig(root: Path) -> None:
    (root / "etc").mkdir()
    (root / "etc/ld.so.conf").write_text("/opt/one\n")
    (root / "opt/one").mkdir(parents=True)
    linked(
        root / "opt/one/libcuda.so.1", compiled(root.parent / "cuda.o", functions(["cuInit"])), soname="libcuda.so.1"
    )
    for form in ("new", "compat"):
        subprocess.run(["/sbin/ldconfig", "-r", root, "-c", form], check=True)
        assert list(cached_folders(str(root))) == ["/opt/one"]


@settings(max_examples=300)
@given(st.data())
def test_any_cache_can_be_read(data: st.DataObject) -> None:
    right = bytearray(cache(*ENTRIES))
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(20, len(right) - 4))
        right[at : at + 4] = data.draw(st.sampled_from([b"\xff" * 4, b"\0" * 4, b"////", b"\0\0\0\x80", b"\1\0\0\0"]))
    for folder in folders_in(bytes(right[: data.draw(st.integers(20, len(right)))])):
        assert folder.startswith("/")


# ---- the rest --------------------------------------------------------------------------------------------------


def test_the_default_folder(root: Path) -> None:
    assert home_of(str(root)) == ""
    for folder in ("lib", "usr/lib64", f"usr/lib/{MACHINE}-linux-gnu"):
        (root / folder).mkdir(parents=True)
        (root / folder / "libc.so.6").write_text("libc")
        assert home_of(str(root)) == f"/{folder}"


def test_a_stamp(root: Path) -> None:
    file = root / "a/b/file"
    os.utime(file, ns=(0, -1_000_000_001))
    status = file.stat()
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    assert stamp(status) == f"{device}:{status.st_ino}:4:-2.999999999"
