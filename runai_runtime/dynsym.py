"""The dynamic symbols of a shared library, as its section headers show them: ELF, 64 bits, little-endian.

Standard library only, and quick (5 ms for a driver's 700 functions): the shim reads an image's own libcuda with it. A
file may hold anything: no size in it is believed before it is known to lie in the file, and only tables are read.

Layouts: System V gABI (Elf64_Ehdr, Elf64_Phdr, Elf64_Shdr, Elf64_Sym).
"""

from __future__ import annotations

import io
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing takes a millisecond to import
    from collections.abc import Iterator
    from typing import IO

HEADER = struct.Struct("<16xHHIQQQIHHHHHH")  # Elf64_Ehdr behind e_ident
SEGMENT = struct.Struct("<IIQQQQQQ")  # Elf64_Phdr
SECTION = struct.Struct("<IIQQQQIIQQ")  # Elf64_Shdr
SYMBOL = struct.Struct("<IBBHQQ")  # Elf64_Sym
IDENTITY = b"\x7fELF\x02\x01\x01"  # ELFCLASS64, ELFDATA2LSB, EV_CURRENT

EM_X86_64, EM_AARCH64 = 62, 183
PROCESSORS = {"x86_64": EM_X86_64, "aarch64": EM_AARCH64}

SHT_STRTAB, SHT_DYNAMIC, SHT_NOBITS, SHT_DYNSYM, SHT_GNU_VERNEED = 3, 6, 8, 11, 0x6FFFFFFE
ENTRY_SIZES = {SHT_DYNSYM: SYMBOL.size, SHT_DYNAMIC: 16}
SHN_UNDEF, SHN_ABS = 0, 0xFFF1
STB_LOCAL, STB_WEAK = 0, 2
STV_DEFAULT, STV_PROTECTED = 0, 3
STT_FUNC, STT_GNU_IFUNC = 2, 10

# The largest driver library that is known has 900 symbols with 30 KiB of names, 40 sections and needs 8 libraries.
MOST_SYMBOLS, MOST_SECTIONS, MOST_LIBRARIES, MOST_NAMES, LONGEST_NAME = 20_000, 200, 64, 4 << 20, 1024


class Export:
    """A symbol that others can link with: where its entry lies in the file, and whether it is a function."""

    __slots__ = ("entry", "function")

    def __init__(self, entry: int, function: bool) -> None:
        self.entry, self.function = entry, function


class Symbols:
    """For which processor a library is (its e_machine), and what it exports."""

    __slots__ = ("exports", "machine")

    def __init__(self, machine: int, exports: dict[str, Export]) -> None:
        self.machine, self.exports = machine, exports


def read_symbols(stream: IO[bytes]) -> Symbols:
    """Raises ValueError or OSError for what is no such library, or a damaged one."""
    machine, sections = check_layout(stream)
    tables = [section for section in sections if section[1] == SHT_DYNSYM]
    if len(tables) != 1:
        raise ValueError(f"it has {len(tables)} sections of the kind SHT_DYNSYM")
    _, _, _, _, offset, length, link, _, _, _ = tables[0]
    _, kind, _, _, names_offset, names_length, *_ = sections[link]
    if kind != SHT_STRTAB or names_length > MOST_NAMES:
        raise ValueError("its symbols have no names, or too long ones")
    names = read_at(stream, names_offset, names_length)
    table = read_at(stream, offset, length - length % SYMBOL.size)
    return Symbols(machine, dict(exports(table, names, offset)))


def exports(table: bytes, names: bytes, offset: int) -> Iterator[tuple[str, Export]]:
    """What is defined and visible to others. A version's own name (OBJECT, absolute) is no symbol to link with."""
    for index, (name, info, other, where, _, _) in enumerate(SYMBOL.iter_unpack(table)):
        if where in (SHN_UNDEF, SHN_ABS) or info >> 4 == STB_LOCAL or other & 3 not in (STV_DEFAULT, STV_PROTECTED):
            continue
        end = names.find(b"\0", name, name + LONGEST_NAME)
        if end < 0:
            raise ValueError("a symbol's name has no end")
        export = Export(offset + index * SYMBOL.size, info & 15 in (STT_FUNC, STT_GNU_IFUNC))
        yield names[name:end].decode("utf-8", "replace"), export


def hide(data: bytes, hidden: list[Export]) -> bytes:
    """DATA, a library, with some of its exports made weak undefined symbols without a value; nothing else changes."""
    copy = bytearray(data)
    for export in hidden:
        name, info, other, *_ = SYMBOL.unpack_from(copy, export.entry)
        SYMBOL.pack_into(copy, export.entry, name, STB_WEAK << 4 | info & 15, other, SHN_UNDEF, 0, 0)
    return bytes(copy)


def check_layout(stream: IO[bytes]) -> tuple[int, list[tuple[int, ...]]]:
    """The e_machine and the section headers. Raises ValueError unless every table lies in the file and has entries of
    the right size.
    """
    size = stream.seek(0, io.SEEK_END)
    if read_at(stream, 0, len(IDENTITY)) != IDENTITY:
        raise ValueError("it doesn't begin like one")
    header = HEADER.unpack(read_at(stream, 0, HEADER.size))
    _, machine, _, _, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, shstrndx = header
    if (phentsize, shentsize) != (SEGMENT.size, SECTION.size):
        raise ValueError("entries of its headers have another size")
    if not 0 < shnum <= MOST_SECTIONS or shstrndx >= shnum or phnum > MOST_SECTIONS:
        raise ValueError(f"it has {shnum} sections and {phnum} segments")
    for _, _, offset, _, _, inside, _, _ in SEGMENT.iter_unpack(read_at(stream, phoff, phnum * SEGMENT.size)):
        if offset + inside > size:
            raise ValueError("a segment ends behind the file")
    sections = list(SECTION.iter_unpack(read_at(stream, shoff, shnum * SECTION.size)))
    for section in sections:
        check_section(section, size, shnum)
    return machine, sections


def check_section(section: tuple[int, ...], size: int, count: int) -> None:
    _, kind, _, _, offset, length, link, info, _, entry = section
    if kind != SHT_NOBITS and offset + length > size:
        raise ValueError("a section ends behind the file")
    if link >= count:
        raise ValueError("a section belongs to one that isn't there")
    if entry != ENTRY_SIZES.get(kind, entry):
        raise ValueError("a table has entries of another size")
    if kind == SHT_DYNSYM and length > MOST_SYMBOLS * SYMBOL.size:
        raise ValueError(f"it has {length // SYMBOL.size} symbols")
    if kind == SHT_GNU_VERNEED and info > MOST_LIBRARIES:
        raise ValueError(f"it needs versions of {info} libraries")


def read_at(stream: IO[bytes], offset: int, length: int) -> bytes:
    if offset >> 63:
        raise ValueError("a table lies behind the file")
    stream.seek(offset)
    data = stream.read(length)
    if len(data) != length:
        raise ValueError("it ends too early")
    return data
