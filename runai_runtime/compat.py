"""The libcuda that an image brings along, newer than the host's driver: NVIDIA's cuda-compat packages.

Such a container gets libvgpu over it, fitted to it, with the image's library as the real one behind. It is taken where
the image's own loader would take it, and as NVIDIA's toolkit does, only from a newer branch of the driver (590 is newer
than 580). In every other case the host's library is behind, and the share holds either way: the image decides nothing
but which library of its own it gets.

What is mounted over the image isn't there yet when the shim looks, so a library in a volume is none of the image's.
"""

from __future__ import annotations

import itertools
import os
import stat
import struct

from runai_runtime.plan import OURS
from runai_runtime.rootfs import look_up, real_path
from runai_runtime.spec import entries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from runai_runtime.host import Host
    from runai_runtime.inventory import Inventory
    from runai_runtime.rootfs import Place
    from runai_runtime.spec import Spec

LIBCUDA = next(iter(OURS))

# Where the image's C library is, there the driver's libraries are put (hook/loader.c, in the same order).
HOMES = tuple(
    f"{top}/{folder}" for folder in (f"lib/{os.uname().machine}-linux-gnu", "lib64", "lib") for top in ("", "/usr")
)

# glibc, sysdeps/generic/dl-cache.h: struct cache_file_new (magic and version, the number of entries) and of
# struct file_entry_new the flags and where the name and the path are, counted from the beginning of the former.
CACHE = "/etc/ld.so.cache"
CACHE_MAGIC = b"glibc-ld.so.cache1.1"
CACHE_COUNT = struct.Struct("<I")
CACHE_HEADER = 48
CACHE_ENTRY = struct.Struct("<III4x8x")
CACHE_FLAGS = {"x86_64": 0x0303, "aarch64": 0x0A03}  # 64-bit libraries for glibc
MOST_CACHE = 4 << 20  # one with 10,000 libraries has 1.2 MiB
MOST_PLACES = 64  # each may lead through hundreds of folders


class ImageDriver:
    """An image's libcuda: its path in the container, without links; what tells it from any other file there; its
    version; and our library fitted to it, a path on the host.
    """

    __slots__ = ("ours", "path", "stamp", "version")

    def __init__(self, path: str, stamp: str, ours: str) -> None:
        self.path, self.stamp, self.ours = path, stamp, ours
        self.version = version_of(path)


def image_driver(host: Host, inventory: Inventory, spec: Spec, root: str, folders: list[str]) -> ImageDriver | None:
    """What the image in ROOT has in FOLDERS, which its LD_LIBRARY_PATH names, or by its loader's cache; None where the
    host's library is to be used.
    """
    mounts = [mount["destination"] for mount in entries(spec, "mounts") if isinstance(mount.get("destination"), str)]
    home = home_of(root)
    for folder in itertools.islice(itertools.chain(folders, cached_folders(root)), MOST_PLACES):
        try:
            if real_path(root, folder) == home:
                return None  # what the loader finds there is the host's
            place = look_up(root, f"{folder}/{LIBCUDA}")
        except (OSError, ValueError):
            continue
        with place:
            return usable(host, inventory, root, place, mounts)
    return None


def describe(image: ImageDriver | None, inventory: Inventory) -> dict[str, str]:
    """Which libcuda is behind ours, for grant.json."""
    if image:
        return {"from": "image", "version": image.version, "path": image.path}
    return {"from": "host", "version": inventory.driver}


def usable(host: Host, inventory: Inventory, root: str, place: Place, mounts: list[str]) -> ImageDriver | None:
    status = os.fstat(place.fd)
    if branch(version_of(place.path)) <= branch(inventory.driver) or not stat.S_ISREG(status.st_mode):
        return None
    if not is_plain(place.path) or place.passed & set(targets(root, mounts)):
        return None
    # What only such an image pays: 5 ms to import, 5 to read.
    from runai_runtime.dynsym import read_symbols
    from runai_runtime.fit import fit_to_image

    try:
        with open(f"/proc/self/fd/{place.fd}", "rb") as file:
            symbols = read_symbols(file)
    except (OSError, ValueError):
        return None
    ours = fit_to_image(host, LIBCUDA, symbols)
    return ImageDriver(place.path, stamp(status), ours) if ours else None


def version_of(path: str) -> str:
    """What follows libcuda.so. in a file's name."""
    return os.path.basename(path).removeprefix(f"{OURS[LIBCUDA]}.")


def branch(version: str) -> int:
    """The first number of a driver's version; 0 if there is none."""
    number = version.partition(".")[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 6 else 0


def is_plain(path: str) -> bool:
    """Whether a plan can hold PATH."""
    return not any(c in "\t\n" or "\ud800" <= c <= "\udfff" for c in path)


def stamp(status: os.stat_result) -> str:
    """As hook/own.c writes it: device, inode, size in bytes, time of change."""
    seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    return f"{device}:{status.st_ino}:{status.st_size}:{seconds}.{nanoseconds}"


def targets(root: str, mounts: list[str]) -> Iterator[str]:
    """MOUNTS without links, as far as the image has them: over what it doesn't have nothing is mounted."""
    for mount in mounts:
        try:
            yield real_path(root, mount)
        except (OSError, ValueError):  # noqa: PERF203 - one that isn't there says nothing of the next
            continue


def home_of(root: str) -> str:
    """The default library folder of the image's loader, without links; "" where the image has no C library."""
    for folder in HOMES:
        try:
            look_up(root, f"{folder}/libc.so.6").__exit__(None, None, None)
            return real_path(root, folder)
        except OSError:  # noqa: PERF203
            continue
    return ""


def cached_folders(root: str) -> Iterator[str]:
    """Folders in which the image's loader finds a libcuda by its cache, in the loader's order."""
    try:
        with look_up(root, CACHE) as place:
            if not stat.S_ISREG(os.fstat(place.fd).st_mode):
                return
            with open(f"/proc/self/fd/{place.fd}", "rb") as file:
                data = file.read(MOST_CACHE + 1)
    except (OSError, ValueError):
        return
    start = data.find(CACHE_MAGIC)  # an older format may stand before it
    if start >= 0 and len(data) <= MOST_CACHE and LIBCUDA.encode() in data:
        yield from folders_in(data[start:])


def folders_in(cache: bytes) -> Iterator[str]:
    if len(cache) < CACHE_HEADER:
        return
    (count,) = CACHE_COUNT.unpack_from(cache, len(CACHE_MAGIC))
    count = min(count, (len(cache) - CACHE_HEADER) // CACHE_ENTRY.size)
    flags, name = CACHE_FLAGS.get(os.uname().machine), LIBCUDA.encode() + b"\0"
    entries = cache[CACHE_HEADER : CACHE_HEADER + count * CACHE_ENTRY.size]
    for flags_here, key, value in CACHE_ENTRY.iter_unpack(entries):
        if flags_here == flags and cache.startswith(name, key):
            end = cache.find(b"\0", value, value + 4096)
            path = cache[value : max(end, value)]
            if path.startswith(b"/"):
                yield os.path.dirname(os.fsdecode(path))
