"""In which symbols a fitted library differs from the one that it was made from, found without what is being tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

SYMBOL_SIZE = 24


def dynamic_symbols(path: Path) -> tuple[int, list[tuple[str, dict[str, Any]]]]:
    """Where .dynsym begins in the file, and its symbols: name and Elf64_Sym."""
    with path.open("rb") as file:
        section: Any = ELFFile(file).get_section_by_name(".dynsym")
        return section["sh_offset"], [(symbol.name, symbol.entry) for symbol in section.iter_symbols()]


def hidden_symbols(original: Path, copy: Path) -> set[str]:
    """Functions in ORIGINAL that are weak undefined symbols in COPY; all else must be the same, to the byte."""
    before, after = original.read_bytes(), bytearray(copy.read_bytes())
    start, symbols = dynamic_symbols(original)
    hidden = set()
    for index, ((name, old), (_, new)) in enumerate(zip(symbols, dynamic_symbols(copy)[1], strict=True)):
        if old != new:
            assert (old["st_info"]["type"], old["st_info"]["bind"]) == ("STT_FUNC", "STB_GLOBAL")
            assert (new["st_shndx"], new["st_info"]["bind"]) == ("SHN_UNDEF", "STB_WEAK")
            assert (new["st_value"], new["st_size"], new["st_name"]) == (0, 0, old["st_name"])
            hidden.add(name)
        at = start + index * SYMBOL_SIZE
        after[at : at + SYMBOL_SIZE] = before[at : at + SYMBOL_SIZE]
    assert after == before
    return hidden
