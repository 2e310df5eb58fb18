"""Make a Debian package of a wheel: `deb.py WHEEL FOLDER [VERSION]`. It needs dpkg-deb, and scdoc for the man pages.

The wheel says what the package is: version, processor, and the Python packages that it needs, which are Debian's own.
Only nvidia-ml-py, which Debian has not, is carried along, from the environment that runs this.
"""

from __future__ import annotations

import configparser
import contextlib
import email.message
import email.parser
import gzip
import hashlib
import importlib.metadata
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from email.utils import formatdate
from pathlib import Path

HERE = Path(__file__).resolve().parent

TOP = HERE.parent
NAME = "runai-runtime"
HOME = Path("usr/lib", NAME)  # runai_runtime/packaged.py has it too
DOC = Path("usr/share/doc", NAME)
MAINTAINER = "runai-runtime maintainers <maintainers@runai-runtime.example>"

# Debian's names of the Python packages that wheels need; None: carried along.
PACKAGES = {
    "jsonschema": "python3-jsonschema",
    "nvidia-ml-py": None,
    "prometheus-client": "python3-prometheus-client",
    "pyelftools": "python3-pyelftools",
    "PyYAML": "python3-yaml",
    "rich": "python3-rich",
    "typer": "python3-typer",
}
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

COMMAND = """\
#!/usr/bin/python3 -I
import os
import sys

sys.path.insert(0, os.path.realpath("/{home}/current"))
from {module} import main

sys.exit(main())
"""

CONTROL = """\
Package: {name}
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {kib}
Depends: {depends}
Recommends: {recommends}
Suggests: crun, podman
Section: admin
Priority: optional
Description: {summary}
 A container gets a share of a GPU's memory, as --memory gives it one of the
 host's: it sees a GPU of that size, and what is above it is refused. Shares of
 one GPU add up to no more than the GPU has.
 .
 This is an OCI runtime in front of runc or crun. After the installation it is
 registered with Docker by runai-ctl configure.
"""

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: {name}

Files: *
Copyright: {maintainer}
License: {license}

Files: {home}/*/pynvml.py
Copyright: NVIDIA Corporation, as said below
License: BSD-3-Clause

License: Apache-2.0
 On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.

License: BSD-3-Clause
{bsd}"""

CHANGELOG = """\
{name} ({version}) unstable; urgency=medium

  * {entry}

 -- {maintainer}  {date}
"""


def main() -> None:
    wheel, folder, *version = sys.argv[1:]
    print(build(Path(wheel), Path(folder), *version))  # noqa: T201 - what it made


def build(wheel: Path, folder: Path, version: str = "") -> Path:
    """The package of WHEEL in FOLDER; VERSION instead of the wheel's is for tests of an upgrade."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "root")
        metadata = unpack(wheel, root / HOME / "package")
        version = debian_version(version or str(metadata["Version"]))
        architecture = ARCHITECTURES[wheel.stem.rpartition("manylinux2014_")[2]]
        kept = f"{version}-{digest(root / HOME / 'package', version)}"
        add_commands(root, read_of(wheel, "entry_points.txt"), metadata)
        add_pages(root)
        add_completions(root)
        add_documents(root, version, metadata)
        add_control(root, version, architecture, kept, metadata)
        folder.mkdir(parents=True, exist_ok=True)
        package = folder.absolute() / f"{NAME}_{version}_{architecture}.deb"
        command: list[str | Path] = ["/usr/bin/dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, package]
        environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch())}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return package


def epoch() -> int:
    """The date of the commit, in seconds: one wheel and one commit make one package, byte by byte. Outside of git it is
    the changelog's.
    """
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command: list[str | Path] = ["git", "-C", TOP, "log", "-1", "--format=%ct"]
    with contextlib.suppress(OSError, ValueError):
        return int(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    return int((TOP / "CHANGELOG.md").stat().st_mtime)


def debian_version(version: str) -> str:
    """VERSION, as PEP 440 has it, in dpkg's order: what comes before a release has a tilde there."""
    return re.sub(r"\.?dev(?=\d)", "~~dev", re.sub(r"(?<=\d)(a|b|rc)(?=\d)", r"~\1", version))


def unpack(wheel: Path, folder: Path) -> email.message.Message:
    """The wheel's modules, and the one that is carried along, in FOLDER; the wheel's METADATA."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith("runai_runtime/")]
        archive.extractall(folder, names)
    shutil.copy(str(of_nvml("pynvml.py")), folder)
    for path in map(str, folder.rglob("*")):
        runs = Path(path).is_dir() or re.search(r"/native/runai-\w+$", path)
        Path(path).chmod(0o755 if runs else 0o644)
    return email.parser.Parser().parsestr(read_of(wheel, "METADATA"))


def read_of(wheel: Path, name: str) -> str:
    """The text NAME of what the wheel says of itself."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [path for path in archive.namelist() if path.endswith(f".dist-info/{name}")]
        return archive.read(path).decode()


def of_nvml(name: str) -> Path:
    """The file of nvidia-ml-py whose path ends in NAME, here."""
    files = importlib.metadata.files("nvidia-ml-py") or []
    (found,) = [file for file in files if str(file).endswith(name)]
    return Path(str(found.locate()))


def digest(folder: Path, version: str) -> str:
    """What tells two builds of one version apart: the folder that is used has it in its name, and is never changed."""
    sums = [version.encode()]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sums += [str(path.relative_to(folder)).encode(), hashlib.sha256(path.read_bytes()).digest()]
    return hashlib.sha256(b"\0".join(sums)).hexdigest()[:8]


def add_commands(root: Path, entry_points: str, metadata: email.message.Message) -> None:
    commands = configparser.ConfigParser()
    commands.read_string(entry_points)
    for name, place in commands["console_scripts"].items():
        write(root / "usr/bin" / name, COMMAND.format(home=HOME, module=place.removesuffix(":main")), 0o755)
    if "3.10" not in str(metadata["Requires-Python"]):
        raise SystemExit("packaging/deb.py: the oldest Python has changed; see Depends")


def add_pages(root: Path) -> None:
    with tempfile.TemporaryDirectory() as made:
        command: list[str | Path] = [sys.executable, "-I", HERE / "page.py", made]
        environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch())}  # a page has a date
        subprocess.run(command, env=environment, check=True)
        for page in Path(made).iterdir():
            packed(root / "usr/share/man" / f"man{page.suffix[1:]}" / f"{page.name}.gz", page.read_bytes())


COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/{}",
    "zsh": "usr/share/zsh/vendor-completions/_{}",
    "fish": "usr/share/fish/vendor_completions.d/{}.fish",
}


def add_completions(root: Path) -> None:
    """Those of runai-docker, which are ours, and typer's for runai-ctl."""
    for shell, path in COMPLETIONS.items():
        write(root / path.format("runai-docker"), (HERE / f"completions/runai-docker.{shell}").read_text())
        command = [Path(sys.executable).with_name("runai-ctl")]
        environment = os.environ | {"_RUNAI_CTL_COMPLETE": f"source_{shell}"}
        text = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.lstrip()
        # zsh reads the file when it first completes the command, which is then to be completed as well.
        write(root / path.format("runai-ctl"), text + ('_runai_ctl_completion "$@"\n' if shell == "zsh" else ""))


def add_documents(root: Path, version: str, metadata: email.message.Message) -> None:
    for name in ("config.json.example", "daemon.json.example"):
        text = (TOP / name).read_text()
        text = re.sub(r'"/[^"]*/runai_runtime/native', f'"/{HOME}/current/runai_runtime/native', text)
        text = text.replace("/usr/local/bin/runai-runtime", f"/{HOME}/runai-runtime")
        write(root / DOC / "examples" / name.removesuffix(".example"), text)
    values = {"name": NAME, "maintainer": MAINTAINER, "home": HOME, "version": version, "date": formatdate(epoch())}
    text = COPYRIGHT.format(
        **values,
        license=metadata["License-Expression"],
        bsd="".join(f" {line or '.'}\n" for line in first_comment(of_nvml("pynvml.py").read_text())),
    )
    write(root / DOC / "copyright", text)
    write(root / "usr/share/lintian/overrides" / NAME, (HERE / "lintian-overrides").read_text())
    packed(root / DOC / "changelog.gz", CHANGELOG.format(entry="What is new: see upstream's CHANGELOG.md.", **values))
    packed(root / DOC / "CHANGELOG.md.gz", (TOP / "CHANGELOG.md").read_text())


def first_comment(text: str) -> list[str]:
    """The lines of the first comment that speaks of a copyright, up to the next line of code: the licence."""
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if "Copyright" in line)
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines[first:])
    return [line.strip("# ").rstrip() for line in comment if set(line) != {"#"}]


def add_control(root: Path, version: str, architecture: str, kept: str, metadata: email.message.Message) -> None:
    depends, recommends = ["python3 (>= 3.10)"], ["docker.io | docker-ce", "runc | crun"]
    for line in metadata.get_all("Requires-Dist", []):
        match = re.fullmatch(r"([\w-]+)>=([\w.]+)(?:; extra == (.*))?", line.strip())
        if match is None:
            raise SystemExit(f"packaging/deb.py: {line} is no lower bound, which Depends could say")
        name, floor, extra = match.groups()
        package = PACKAGES[name]
        if package:
            (recommends if extra else depends).append(f"{package} (>= {floor})")
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    text = CONTROL.format(
        name=NAME,
        version=version,
        architecture=architecture,
        maintainer=MAINTAINER,
        kib=size // 1024 + 1,
        depends=", ".join(depends),
        recommends=", ".join(recommends),
        summary=metadata["Summary"],
    )
    write(root / "DEBIAN/control", text)
    for name in ("postinst", "prerm", "postrm"):
        write(root / "DEBIAN" / name, (HERE / name).read_text().replace("@KEPT@", kept), 0o755)
    files = sorted(path for path in root.rglob("*") if path.is_file() and "DEBIAN" not in path.parts)
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(root)}\n" for path in files]  # noqa: S324 - dpkg's format
    write(root / "DEBIAN/md5sums", "".join(sums))


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def packed(path: Path, text: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text if isinstance(text, bytes) else text.encode(), 9, mtime=0))
    path.chmod(0o644)


if __name__ == "__main__":
    main()
