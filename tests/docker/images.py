"""Images for tests, made from files of this machine: no registry is asked.

Each is a tar that Python writes, kept on disk under the hash of what went into it, and given to
`docker import`. `TARGETS` holds one line an image.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import platform
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.docker.engine import Engine
from tests.docker.place import DATA

BUSYBOX = "runai-test:busybox"
MUSL = "runai-test:musl"
LINKER = "runai-test:linker"
ALPINE = "runai-test:alpine"
NO_ETC = "runai-test:no-etc"
BARE = "runai-test:bare"
PYTHON = "runai-test:python"

MACHINE = platform.machine()
MULTIARCH = f"{MACHINE}-linux-gnu"
LOADERS = {"x86_64": "lib64/ld-linux-x86-64.so.2", "aarch64": "lib/ld-linux-aarch64.so.1"}
GLIBC = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libgcc_s.so.1")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"
GROUP = "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n"


class Tree:
    """The files of an image: path without a leading slash -> tar entry and content."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[tarfile.TarInfo, bytes]] = {}

    def folder(self, path: str, mode: int = 0o755, owner: int = 0) -> None:
        self._add(path, tarfile.DIRTYPE, mode, owner=owner)

    def file(self, path: str, content: bytes | str, mode: int = 0o644, owner: int = 0) -> None:
        data = content.encode() if isinstance(content, str) else content
        self._add(path, tarfile.REGTYPE, mode, data, owner=owner)

    def copy(self, path: str, source: Path) -> None:
        """The file that source leads to, with its mode."""
        self.file(path, source.read_bytes(), source.stat().st_mode & 0o777)

    def link(self, path: str, target: str) -> None:
        self._add(path, tarfile.SYMTYPE, 0o777, target=target)

    def _add(self, path: str, kind: bytes, mode: int, data: bytes = b"", *, target: str = "", owner: int = 0) -> None:
        for parent in reversed(Path(path).parents):
            if str(parent) != "." and str(parent) not in self._entries:
                self.folder(str(parent))
        entry = tarfile.TarInfo(path)
        entry.type, entry.mode, entry.size, entry.linkname = kind, mode, len(data), target
        entry.uid = entry.gid = owner
        self._entries[path] = (entry, data)

    def without(self, top: str) -> Tree:
        """The same tree with no path TOP and nothing below it."""
        for path in [path for path in self._entries if path == top or path.startswith(f"{top}/")]:
            del self._entries[path]
        return self

    def tar(self) -> bytes:
        """The same tree gives the same bytes: parents before what is in them, and no times."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for entry, data in self._entries.values():
                tar.addfile(entry, io.BytesIO(data))
        return buffer.getvalue()


def basis() -> Tree:
    """What every image has: Debian's folders with /bin, /sbin, /lib and /lib64 merged into /usr, and busybox."""
    busybox = Path("/usr/bin/busybox").resolve()
    tree = Tree()
    for name in ("bin", "sbin", "lib", "lib64"):
        tree.folder(f"usr/{name}")
        tree.link(name, f"usr/{name}")
    for name in ("dev", "etc", "proc", "run", "sys", "usr/local/bin", "var/tmp"):
        tree.folder(name)
    tree.folder("tmp", 0o1777)
    tree.folder("root", 0o700)
    tree.folder("home/user", owner=1000)
    tree.file("etc/passwd", PASSWD)
    tree.file("etc/group", GROUP)
    tree.copy("usr/bin/busybox", busybox)
    applets = subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            tree.link(f"usr/bin/{applet}", "busybox")
    return tree


def busybox_tree() -> Tree:
    """Busybox, and this machine's glibc in Debian's places, so that dynamically linked programs run."""
    tree = basis()
    libraries = Path("/usr/lib", MULTIARCH)
    loader = LOADERS[MACHINE]
    tree.copy(f"usr/lib/{MULTIARCH}/{Path(loader).name}", Path("/", loader))
    tree.link(f"usr/{loader}", f"/lib/{MULTIARCH}/{Path(loader).name}")
    for name in GLIBC:
        if (library := libraries / name).exists():
            tree.copy(f"usr/lib/{MULTIARCH}/{name}", library)
    return tree


def linker_tree() -> Tree:
    """The same with this machine's gcc as far as it links objects; its compiler would be ten times the size."""
    tree = busybox_tree()
    programs = [Path("/usr/bin/gcc"), Path("/usr/bin/ld"), gcc_file("prog", "collect2")]
    for program in programs:
        tree.copy(str(program).lstrip("/"), program)
        for library in needed_libraries(program):
            tree.copy(f"usr/lib/{MULTIARCH}/{library.name}", library)
    of_gcc = ("crtbegin.o", "crtend.o", "crtbeginS.o", "crtendS.o", "libgcc.a", "libgcc_s.so", "liblto_plugin.so")
    for name in (*of_gcc, "Scrt1.o", "crt1.o", "crti.o", "crtn.o", "libc.so", "libc_nonshared.a"):
        file = gcc_file("file", name)
        tree.copy(str(file).lstrip("/"), file)
    return tree


def python_tree() -> Tree:
    """The same with this machine's Python; its modules are in a volume (`python_modules`), and packages in another."""
    tree = busybox_tree()
    program = Path(os.path.realpath("/usr/bin/python3"))
    tree.copy(f"usr/bin/{program.name}", program)
    tree.link("usr/bin/python3", program.name)
    for user in (program, *python_modules().glob("lib-dynload/*.so")):
        for library in needed_libraries(user):
            tree.copy(f"usr/lib/{MULTIARCH}/{library.name}", library)
    return tree


def python_modules() -> Path:
    """The folder of that Python's own modules."""
    return Path("/usr/lib", Path(os.path.realpath("/usr/bin/python3")).name)


def gcc_file(kind: str, name: str) -> Path:
    """Where gcc keeps one of its programs ("prog") or files ("file")."""
    found = subprocess.run(
        ["/usr/bin/gcc", f"-print-{kind}-name={name}"], stdout=subprocess.PIPE, text=True, check=True
    )
    return Path(os.path.normpath(found.stdout.strip()))


def needed_libraries(program: Path) -> list[Path]:
    """What the loader would take for a program of this machine, without the loader itself."""
    listing = subprocess.run(["/usr/bin/ldd", program], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [Path(line.split()[2]) for line in listing.splitlines() if " => /" in line]


def alpine_tree() -> Tree:
    """As Alpine with its gcompat: musl's loader, which also answers to the name of glibc's."""
    tree = basis()
    tree.copy(f"usr/lib/ld-musl-{MACHINE}.so.1", Path(f"/lib/ld-musl-{MACHINE}.so.1"))
    tree.link(f"usr/lib/{Path(LOADERS[MACHINE]).name}", f"ld-musl-{MACHINE}.so.1")
    return tree


def bare_tree() -> Tree:
    """One static program and no folder that a system has."""
    tree = Tree()
    tree.copy("busybox", Path("/usr/bin/busybox").resolve())
    return tree


TARGETS: dict[str, Callable[[], Tree]] = {
    BUSYBOX: busybox_tree,
    LINKER: linker_tree,
    ALPINE: alpine_tree,
    NO_ETC: lambda: busybox_tree().without("etc"),
    BARE: bare_tree,
    PYTHON: python_tree,
    MUSL: basis,  # no glibc at all: static programs, as in an image of Alpine's
}


@functools.cache
def archive(name: str) -> Path:
    """The image's tar, made when its inputs are others than the last time."""
    content = TARGETS[name]().tar()
    path = DATA / "images" / f"{name.replace(':', '-')}-{hashlib.sha256(content).hexdigest()[:16]}.tar"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_bytes(content)
        scratch.rename(path)
        for old in path.parent.glob(f"{name.replace(':', '-')}-*.tar"):
            if old != path:
                old.unlink(missing_ok=True)
    return path


def load(engine: Engine, name: str = BUSYBOX) -> str:
    """Have the image in the engine; its name comes back."""
    if name not in engine.images:
        engine.docker("import", "--change", 'CMD ["/bin/sh"]', archive(name), name)
        engine.images.add(name)
    return name


def derive(engine: Engine, name: str, script: str = "true", *changes: str, base: str = BUSYBOX) -> str:
    """Make the image NAME: what SCRIPT does in a container of BASE, with docker commit's CHANGES."""
    engine.docker("run", "--name=derive", "--network=host", base, "sh", "-c", script)
    engine.docker("commit", *(f"--change={change}" for change in changes), "derive", name)
    engine.docker("rm", "derive")
    return name
