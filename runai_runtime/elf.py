"""What a loader and a linker see of a shared library, read with pyelftools: ELF, 64 bits, little-endian.

Layouts: System V gABI (Elf64_Ehdr, Elf64_Shdr, Elf64_Sym, Elf64_Dyn); GNU_STACK, GNU_RELRO and the version sections:
the Linux Standard Base. A file may hold anything: what can't be read is a RefusalError, and no size in it is believed
before it is known to lie in the file.
"""

from __future__ import annotations

import io
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
from elftools.elf.sections import NoteSection, SymbolTableSection

from runai_runtime.errors import RefusalError, reason

HEADER = struct.Struct("<16xHHIQQQIHHHHHH")  # Elf64_Ehdr behind e_ident
SEGMENT = struct.Struct("<IIQQQQQQ")  # Elf64_Phdr
SECTION = struct.Struct("<IIQQQQIIQQ")  # Elf64_Shdr
SYMBOL_SIZE = 24  # sizeof(Elf64_Sym)
IDENTITY = b"\x7fELF\x02\x01\x01"  # ELFCLASS64, ELFDATA2LSB, EV_CURRENT

SHT_DYNAMIC, SHT_NOTE, SHT_NOBITS, SHT_DYNSYM, SHT_GNU_VERNEED = 6, 7, 8, 11, 0x6FFFFFFE
ENTRY_SIZES = {SHT_DYNSYM: SYMBOL_SIZE, SHT_DYNAMIC: 16}
PF_X = 1
DF_BIND_NOW, DF_TEXTREL = 8, 4
DF_1_NOW, DF_1_NODELETE = 1, 8

# The largest driver library that is known has 900 symbols, 40 sections and needs 8 libraries.
MOST_SYMBOLS, MOST_SECTIONS, MOST_LIBRARIES, MOST_VERSIONS = 20_000, 200, 64, 256

# What pyelftools raises for bytes that are no ELF file, or a damaged one.
FAULTS = (
    *(ELFError, ConstructError, struct.error, ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(AssertionError, NotImplementedError, OSError, MemoryError, RecursionError),
)


@dataclass(frozen=True, slots=True)
class Export:
    """A symbol that others can link with: where its entry lies in the file, and whether it is a function."""

    entry: int
    function: bool


@dataclass(frozen=True, slots=True)
class Library:
    """A shared library. `build_id` is hexadecimal, "" where there is none; `versions` are the symbol versions that it
    asks of others, such as GLIBC_2.17.
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


def read_library(path: str) -> Library:
    """Raises RefusalError for what is no such library."""
    try:
        with open(path, "rb") as file:
            return parse(file, path)
    except OSError as error:
        raise RefusalError(f"the library {path} can't be read: {reason(error)}; install it again") from error


def parse(stream: IO[bytes], name: str) -> Library:
    try:
        check_layout(stream)
        return look(ELFFile(stream))
    except FAULTS as error:
        kind = str(error) or type(error).__name__
        raise RefusalError(f"{name} is no undamaged 64-bit shared library ({kind[:100]}); install it again") from error


def check_layout(stream: IO[bytes]) -> None:
    """Raise ValueError unless every table lies in the file and has entries of the right size."""
    size = stream.seek(0, io.SEEK_END)
    if read_at(stream, 0, len(IDENTITY)) != IDENTITY:
        raise ValueError("it doesn't begin like one")
    _, _, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, shstrndx = HEADER.unpack(
        read_at(stream, 0, HEADER.size)
    )
    if (phentsize, shentsize) != (SEGMENT.size, SECTION.size):
        raise ValueError("entries of its headers have another size")
    if not 0 < shnum <= MOST_SECTIONS or shstrndx >= shnum or phnum > MOST_SECTIONS:
        raise ValueError(f"it has {shnum} sections and {phnum} segments")
    for number in range(phnum):
        _, _, offset, _, _, inside, _, _ = SEGMENT.unpack(read_at(stream, phoff + number * SEGMENT.size, SEGMENT.size))
        if offset + inside > size:
            raise ValueError("a segment ends behind the file")
    for number in range(shnum):
        section = SECTION.unpack(read_at(stream, shoff + number * SECTION.size, SECTION.size))
        check_section(section, size, shnum)


def check_section(section: tuple[int, ...], size: int, count: int) -> None:
    _, kind, _, _, offset, length, link, info, _, entry = section
    if kind != SHT_NOBITS and offset + length > size:
        raise ValueError("a section ends behind the file")
    if link >= count:
        raise ValueError("a section belongs to one that isn't there")
    if entry != ENTRY_SIZES.get(kind, entry):
        raise ValueError("a table has entries of another size")
    if kind == SHT_DYNSYM and length > MOST_SYMBOLS * SYMBOL_SIZE:
        raise ValueError(f"it has {length // SYMBOL_SIZE} symbols")
    if kind == SHT_GNU_VERNEED and info > MOST_LIBRARIES:
        raise ValueError(f"it needs versions of {info} libraries")


def read_at(stream: IO[bytes], offset: int, length: int) -> bytes:
    stream.seek(offset)
    data = stream.read(length)
    if len(data) != length:
        raise ValueError("it ends too early")
    return data


def look(elf: ELFFile) -> Library:
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
        exports=dict(exports(only(sections, SymbolTableSection, "SHT_DYNSYM"))),
        versions=set(needed_versions(sections)),
        executable_stack=not stacks or bool(stacks[0] & PF_X),
        relro=any(segment["p_type"] == "PT_GNU_RELRO" for segment in elf.iter_segments()),
        bind_now="DT_BIND_NOW" in tags or bool(flags & DF_BIND_NOW) or bool(flags_1 & DF_1_NOW),
        nodelete=bool(flags_1 & DF_1_NODELETE),
        textrel="DT_TEXTREL" in tags or bool(flags & DF_TEXTREL),
    )


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


def exports(symbols: Any) -> Iterator[tuple[str, Export]]:
    """What is defined and visible to others. A version's own name (OBJECT, absolute) is no symbol to link with."""
    for index, symbol in enumerate(symbols.iter_symbols()):
        where, info = symbol["st_shndx"], symbol["st_info"]
        if where in ("SHN_UNDEF", "SHN_ABS") or info["bind"] == "STB_LOCAL":
            continue
        if symbol["st_other"]["visibility"] in ("STV_DEFAULT", "STV_PROTECTED"):
            function = info["type"] in ("STT_FUNC", "STT_GNU_IFUNC", "STT_LOOS")
            yield symbol.name, Export(symbols["sh_offset"] + index * SYMBOL_SIZE, function)


def needed_versions(sections: list[Any]) -> Iterator[str]:
    for section in sections:
        if isinstance(section, GNUVerNeedSection):
            names = (version.name for _, versions in section.iter_versions() for version in versions)
            found = list(itertools.islice(names, MOST_VERSIONS + 1))
            if len(found) > MOST_VERSIONS:
                raise ValueError("it asks for too many versions")
            yield from found
