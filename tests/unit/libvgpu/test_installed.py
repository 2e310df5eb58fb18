"""The installed libraries: what they need, export and ask of glibc."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from elftools.elf.sections import SymbolTableSection

from tests.unit.libvgpu.place import SONAMES, policies

NATIVE = Path(sysconfig.get_path("platlib"), "runai_runtime/native")


def dynamic(elf: ELFFile) -> dict[str, list[Any]]:
    section = elf.get_section_by_name(".dynamic")
    assert isinstance(section, DynamicSection)
    found: dict[str, list[Any]] = {}
    for tag in section.iter_tags():
        value = {"DT_NEEDED": "needed", "DT_SONAME": "soname"}.get(tag.entry.d_tag)
        found.setdefault(tag.entry.d_tag, []).append(getattr(tag, value) if value else tag.entry.d_val)
    return found


@pytest.mark.parametrize("part", SONAMES)
def test_installed_library(part: str) -> None:
    prefix = {"cuda": "cu", "nvml": "nvml"}[part]
    with (NATIVE / SONAMES[part]).open("rb") as file:
        elf = ELFFile(file)
        tags = dynamic(elf)
        assert tags["DT_SONAME"] == [SONAMES[part]]
        assert tags["DT_NEEDED"][0] == f"/.runai/real/{SONAMES[part]}"
        allowed = {"libc.so.6", "libdl.so.2", "libpthread.so.0", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
        assert set(tags["DT_NEEDED"][1:]) <= allowed
        assert tags["DT_FLAGS"][0] & 0x8 and tags["DT_FLAGS_1"][0] & 0x9 == 0x9  # BIND_NOW; NOW and NODELETE
        assert not {"DT_TEXTREL", "DT_RPATH", "DT_RUNPATH"} & set(tags)
        segments = {segment["p_type"]: segment["p_flags"] for segment in elf.iter_segments()}
        assert "PT_GNU_RELRO" in segments and not segments["PT_GNU_STACK"] & 1
        assert elf.get_section_by_name(".note.gnu.build-id") is not None

        symbols = elf.get_section_by_name(".dynsym")
        assert isinstance(symbols, SymbolTableSection)
        exported = [s.name for s in symbols.iter_symbols() if s["st_shndx"] != "SHN_UNDEF" and s.name]
        assert sorted(exported) == sorted(name for _, name in policies(part))
        assert all(name.startswith(prefix) for name in exported)
        needs = elf.get_section_by_name(".gnu.version_r")
        assert isinstance(needs, GNUVerNeedSection)
        versions = {auxiliary.name for _, entries in needs.iter_versions() for auxiliary in entries}
        glibc = [tuple(map(int, name.removeprefix("GLIBC_").split("."))) for name in versions]
        assert max(glibc) <= (2, 17)
