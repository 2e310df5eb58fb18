"""Whether our libraries are what they have to be, and what they do about each symbol of a driver.

The table is libvgpu's own, from which the libraries are made: functions.h comes with them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from runai_runtime.dynsym import PROCESSORS
from runai_runtime.elf import Library, read_library
from runai_runtime.errors import RefusalError, reason

PACKAGE = os.path.dirname(os.path.abspath(__file__))
# Where the tables are: in an installed package, in a checkout.
TABLE_FOLDERS = (os.path.join(PACKAGE, "native"), os.path.join(os.path.dirname(PACKAGE), "libvgpu"))
TABLES = {"libcuda.so.1": "cuda", "libnvidia-ml.so.1": "nvml"}
LINE = re.compile(r"^FUNCTION\((TAKE|PASS|ASIDE), (\w+)\)$", re.MULTILINE)

NEWEST_GLIBC = (2, 17)  # that of CentOS 7, the oldest in which people still run CUDA
PAGES = {"aarch64": 65536}  # the largest that kernels are built with; elsewhere 4096
NEEDED = frozenset({"libc.so.6", "libpthread.so.0", "libdl.so.2"})

# What a library says of a driver's symbol, the most telling first.
INTERCEPTED, ASIDE, PASSES, DATA, UNKNOWN = "intercepted", "aside", "passes", "data", "unknown"
KINDS = {"TAKE": INTERCEPTED, "ASIDE": ASIDE, "PASS": PASSES}

# Names of functions that take device memory or report it. libvgpu's table is the measure: of what it intercepts or
# watches, the pattern and the rule for versions (looks_like_memory) must know every one.
SUSPECT = re.compile(
    r"cu\w*(Alloc|Malloc|(Mem|Array|Pool|Ctx|Heap|Multicast|Buffer)\w*Create|Create\w*(Mem|Array|Pool|Heap|Buffer)"
    r"|MemMap|GetMemInfo|MemGetInfo|TotalMem)\w*"
    r"|nvml\w*(MemoryInfo|MemoryUsage|MemoryLimit|RunningProcess)\w*"
)
VERSION = re.compile(r"(_v\d+)?(_ptsz|_ptds)?$")


@dataclass(frozen=True)
class Check:
    """One fact about one of our libraries. `fault` is "", or what is wrong."""

    name: str
    found: str
    fault: str = ""


@dataclass(frozen=True)
class Symbols:
    """What one of our libraries does about the symbols of a driver's library, by kind. `missing` are those that the
    driver lacks and that a fitted copy doesn't show; `suspects` the unknown ones that look like memory.
    """

    path: str
    kinds: dict[str, list[str]]
    missing: list[str]
    suspects: list[str]


@dataclass(frozen=True)
class Report:
    """All about one library. `driver` is None where no driver was looked at."""

    soname: str
    path: str
    checks: list[Check]
    driver: Symbols | None = None
    strict: bool = field(default=False, compare=False)

    def faults(self) -> list[str]:
        """What is wrong, a sentence's end each."""
        faults = [f"{check.name}: {check.fault}" for check in self.checks if check.fault]
        if self.strict and self.driver:
            faults += [f"{name}: unknown, and looks like device memory" for name in self.driver.suspects]
        return faults


def verify(
    libraries: str, drivers: dict[str, str], *, strict: bool = False, processor: str = os.uname().machine
) -> list[Report]:
    """A report on each of our libraries in the folder LIBRARIES, against DRIVERS (SONAME: path; one may be missing).
    PROCESSOR is the one that they must be for, as uname calls it.

    Raises RefusalError for a file that can't be read at all.
    """
    reports = []
    for soname in TABLES:
        path = os.path.join(libraries, soname)
        driver = drivers.get(soname)
        symbols = classify(soname, driver) if driver else None
        reports.append(Report(soname, path, list(checks(soname, read_library(path), processor)), symbols, strict))
    return reports


def refuse_faults(libraries: str) -> None:
    """Raise RefusalError unless the libraries in a folder are what they have to be."""
    for report in verify(libraries, {}):
        for fault in report.faults():
            raise RefusalError(f"our {report.path} is not as it has to be ({fault}); install runai-runtime again")


@cache
def table(soname: str) -> dict[str, str]:
    """Policy by function, as libvgpu's table says."""
    for folder in TABLE_FOLDERS:
        path = os.path.join(folder, TABLES[soname], "functions.h")
        try:
            with open(path, encoding="utf-8") as file:
                return {name: policy for policy, name in LINE.findall(file.read())}
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RefusalError(f"{path} can't be read: {reason(error)}; install runai-runtime again") from error
    raise RefusalError(f"the table for {soname} is missing from {TABLE_FOLDERS[0]}; install runai-runtime again")


def checks(soname: str, library: Library, processor: str = os.uname().machine) -> Iterator[Check]:
    yield Check("SONAME", library.soname, "" if library.soname == soname else f"must be {soname}")
    yield check_processor(library, processor)
    yield check_pages(library, processor)
    yield check_needed(soname, library)
    yield check_glibc(library)
    yield check_exports(soname, library)
    yield flag("stack", "executable", "not executable", wrong=library.executable_stack)
    yield flag("RELRO", "none or partial", "full", wrong=not (library.relro and library.bind_now))
    yield flag("text relocations", "some", "none", wrong=library.textrel)
    yield flag("dlclose", "unloads it", "keeps it (NODELETE)", wrong=not library.nodelete)
    yield flag("build id", "none", library.build_id, wrong=not library.build_id)


def flag(name: str, bad: str, good: str, *, wrong: bool) -> Check:
    return Check(name, bad if wrong else good, f"must be {good or 'there'}" if wrong else "")


def check_processor(library: Library, processor: str) -> Check:
    names = {number: name for name, number in PROCESSORS.items()}
    found = names.get(library.machine, f"ELF machine {library.machine}")
    return Check("processor", found, "" if found == processor else f"must be {processor}")


def check_pages(library: Library, processor: str) -> Check:
    wanted = PAGES.get(processor, 4096)
    found = f"up to {library.pages >> 10} KiB"
    return Check("pages", found, "" if library.pages >= wanted else f"must be good for {wanted >> 10} KiB")


def check_needed(soname: str, library: Library) -> Check:
    """The real library first: what programs need beyond our table resolves in it before anything else of ours."""
    real = f"/.runai/real/{soname}"
    others = set(library.needed) - NEEDED - {real}
    fault = ""
    if library.needed[:1] != [real]:
        fault = f"must begin with {real}"
    elif others:
        fault = f"must not have {', '.join(sorted(others))}"
    return Check("needed libraries", " ".join(library.needed), fault)


def check_glibc(library: Library) -> Check:
    """Versions are numbers with dots (GLIBC_2.2.5); anything else (GLIBC_PRIVATE, GCC_3.0) is not ours to ask for."""
    highest: tuple[int, ...] = (0,)
    for version in library.versions:
        match = re.fullmatch(r"GLIBC_([0-9]{1,3}(?:\.[0-9]{1,3})*)", version)
        if not match:
            return Check("glibc", version, "must be a version of glibc alone")
        highest = max(highest, tuple(map(int, match[1].split("."))))
    found = ".".join(map(str, highest)) if library.versions else "none"
    return Check("glibc", found, "" if highest <= NEWEST_GLIBC else "must be 2.17 or older")


def check_exports(soname: str, library: Library) -> Check:
    wanted, there = set(table(soname)), set(library.exports)
    faults = [f"{few(wanted - there)} missing"] if wanted - there else []
    faults += [f"{few(there - wanted)} too many"] if there - wanted else []
    return Check("exports", f"{len(there)}", "; ".join(faults))


def few(names: set[str]) -> str:
    """The first few of NAMES, for a sentence."""
    first = sorted(names)[:3]
    return ", ".join(first) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def classify(soname: str, driver: str) -> Symbols:
    """What our library does about each symbol of the driver's library at the path DRIVER."""
    policies = table(soname)
    exports = read_library(driver).exports
    kinds: dict[str, list[str]] = {kind: [] for kind in (INTERCEPTED, ASIDE, PASSES, DATA, UNKNOWN)}
    for name, export in sorted(exports.items()):
        known = KINDS.get(policies.get(name, ""))
        kinds[known or (UNKNOWN if export.function else DATA)].append(name)
    suspects = [name for name in kinds[UNKNOWN] if looks_like_memory(name, policies)]
    return Symbols(driver, kinds, sorted(set(policies) - set(exports)), suspects)


def looks_like_memory(name: str, policies: dict[str, str]) -> bool:
    """Whether an unknown function may take or report device memory: by its name, or as a new version of a function
    that the table intercepts or watches.
    """
    watched = {VERSION.sub("", known) for known, policy in policies.items() if policy != "PASS"}
    return bool(SUSPECT.fullmatch(name)) or VERSION.sub("", name) in watched
