"""What a loader and a linker see of a shared library, read with pyelftools: ELF, 64 bits, little-endian.

Layouts: System V gABI (Elf64_Dyn); GNU_STACK, GNU_RELRO and the version sections: the Linux Standard Base. A file may
hold anything: dynsym.py looks at its tables first, and what can't be read is a RefusalError.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import NoteSection

from runai_runtime.dynsym import Export, Symbols, read_symbols
from runai_runtime.errors import RefusalError, reason

PF_X = 1
DF_BIND_NOW, DF_TEXTREL = 8, 4
DF_1_NOW, DF_1_NODELETE = 1, 8

MOST_VERSIONS = 256  # which a library asks of one other, and tags of its dynamic section; known ones have a tenth

# What pyelftools raises for bytes that are no ELF file, or a damaged one.
FAULTS = (
    *(ELFError, ConstructError, struct.error, ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(AssertionError, NotImplementedError, OSError, MemoryError, RecursionError),
)


@dataclass(frozen=True, slots=True)
class Library:
    """A shared library. `build_id` is hexadecimal, "" where there is none; `versions` are the symbol versions that it
    asks of others, such as GLIBC_2.17; `machine` is its e_machine; `pages` is the size of the largest pages, in bytes,
    on which its segments can be loaded, and its read-only relocations protected.
    """

    soname: str
    needed: list[str]
    build_id: str
    exports: dict[str, Export]
    versions: set[str]
    executable_stack: bool
    relro: bool
    bind_now: bool
    nodelete: bool
    textrel: bool
    machine: int
    pages: int


def read_library(path: str) -> Library:
    """Raises RefusalError for what is no such library."""
    try:
        with open(path, "rb") as file:
            return parse(file, path)
    except OSError as error:
        raise RefusalError(f"the library {path} can't be read: {reason(error)}; install it again") from error


def parse(stream: IO[bytes], name: str) -> Library:
    try:
        symbols = read_symbols(stream)
        return look(ELFFile(stream), symbols)
    except FAULTS as error:
        kind = str(error) or type(error).__name__
        raise RefusalError(f"{name} is no undamaged 64-bit shared library ({kind[:100]}); install it again") from error


def look(elf: ELFFile, symbols: Symbols) -> Library:
    sections = list(elf.iter_sections())
    dynamic = only(sections, DynamicSection, "SHT_DYNAMIC")
    tags = dynamic_tags(dynamic)
    flags, flags_1 = number(tags, "DT_FLAGS"), number(tags, "DT_FLAGS_1")
    # A file that says nothing about its stack gets an executable one.
    stacks = [segment["p_flags"] for segment in elf.iter_segments() if segment["p_type"] == "PT_GNU_STACK"]
    return Library(
        soname=next((str(tag.soname) for tag in tags.get("DT_SONAME", [])), ""),
        needed=[str(tag.needed) for tag in tags.get("DT_NEEDED", [])],
        build_id=build_id(sections),
        exports=symbols.exports,
        versions=set(needed_versions(sections)),
        executable_stack=not stacks or bool(stacks[0] & PF_X),
        relro=any(segment["p_type"] == "PT_GNU_RELRO" for segment in elf.iter_segments()),
        bind_now="DT_BIND_NOW" in tags or bool(flags & DF_BIND_NOW) or bool(flags_1 & DF_1_NOW),
        nodelete=bool(flags_1 & DF_1_NODELETE),
        textrel="DT_TEXTREL" in tags or bool(flags & DF_TEXTREL),
        machine=symbols.machine,
        pages=largest_pages(elf),
    )


def largest_pages(elf: ELFFile) -> int:
    """The loader refuses a segment that is aligned to less than a page, and protects no page that RELRO only begins."""
    sizes = [segment["p_align"] for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
    ends = [s["p_vaddr"] + s["p_memsz"] for s in elf.iter_segments() if s["p_type"] == "PT_GNU_RELRO"]
    return int(min([*sizes, *(end & -end for end in ends)], default=0))


def only(sections: list[Any], kind: Any, name: str) -> Any:
    found = [section for section in sections if isinstance(section, kind) and section["sh_type"] == name]
    if len(found) != 1:
        raise ValueError(f"it has {len(found)} sections of the kind {name}")
    return found[0]


def dynamic_tags(dynamic: Any) -> dict[str, list[Any]]:
    """The tags by name, each in the file's order."""
    tags: dict[str, list[Any]] = {}
    for tag in itertools.islice(dynamic.iter_tags(), MOST_VERSIONS):
        tags.setdefault(str(tag.entry.d_tag), []).append(tag)
    return tags


def number(tags: dict[str, list[Any]], name: str) -> int:
    return int(tags[name][0].entry.d_val) if name in tags else 0


def build_id(sections: list[Any]) -> str:
    for section in sections:
        if isinstance(section, NoteSection) and section.name == ".note.gnu.build-id":
            for note in itertools.islice(section.iter_notes(), 8):
                if note["n_type"] == "NT_GNU_BUILD_ID":
                    return bytes.fromhex(str(note["n_desc"])).hex()
    return ""


def needed_versions(sections: list[Any]) -> Iterator[str]:
    for section in sections:
        if isinstance(section, GNUVerNeedSection):
            names = (version.name for _, versions in section.iter_versions() for version in versions)
            found = list(itertools.islice(names, MOST_VERSIONS + 1))
            if len(found) > MOST_VERSIONS:
                raise ValueError("it asks for too many versions")
            yield from found
