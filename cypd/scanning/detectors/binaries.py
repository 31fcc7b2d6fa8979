"""Modules in executables: what Go's linker notes (debug/buildinfo), what cargo-auditable does."""

import io
import re
import struct
import zlib
from collections.abc import Iterator

import msgspec
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from cypd.scanning.detectors.detector import BINARY_BYTES, TEXT_BYTES, Detector
from cypd.scanning.packages import Damaged, Package
from cypd.scanning.unpacking import Budget

_MAGIC = b"\xff Go buildinf:"
_ALIGNMENT = 16
_HEADER = 32
_IN_PLACE = 2  # the flag of Go 1.18 and newer: the strings follow the header
_SENTINEL = 16  # bytes around the modules' text
_GO = re.compile(r"go(\d+\.\d+)(?:\.(\d+))?(?:(rc|beta)(\d+))?(?![\w.])")
_LIBRARY = re.compile(r".*\.(?:so(?:\.[\w.-]+)?|ko|o|a)")


class _Crate(msgspec.Struct):
    name: str
    version: str
    kind: str = "runtime"


class _Crates(msgspec.Struct):
    packages: list[_Crate] = []


# pyelftools takes a file's word for it and stumbles in many ways where it is not true.
_STUMBLES = (ELFError, struct.error, zlib.error, msgspec.MsgspecError, ArithmeticError,
             AssertionError, AttributeError, LookupError, TypeError, ValueError)  # fmt: skip
_crates = msgspec.json.Decoder(_Crates)


def _wants(path: str, mode: int) -> bool:
    return bool(mode & 0o111) and not _LIBRARY.fullmatch(path)


def _read(_: str, file: io.BytesIO, __: Budget) -> Iterator[Package]:
    try:
        elf = ELFFile(file)
        yield from _rust(elf)
        yield from _go(elf, file.getbuffer())
    except _STUMBLES as error:
        raise Damaged(f"{type(error).__name__}: {error}") from None


# --- Rust ---------------------------------------------------------------------------------------


def _rust(elf: ELFFile) -> Iterator[Package]:
    section = elf.get_section_by_name(".dep-v0")
    if section is None:
        return
    decoder = zlib.decompressobj()
    content = decoder.decompress(section.data(), TEXT_BYTES)
    if decoder.unconsumed_tail:
        raise Damaged(f"its list of crates has more than {TEXT_BYTES} bytes")
    for crate in _crates.decode(content).packages:
        if crate.kind == "runtime":
            yield Package("cargo", crate.name, crate.version)


# --- Go -----------------------------------------------------------------------------------------


def _go(elf: ELFFile, content: memoryview) -> Iterator[Package]:
    start = _build_info(elf, content)
    if start is None:
        return
    header = bytes(content[start : start + _HEADER])
    if header[15] & _IN_PLACE:
        version, end = _string(content, start + _HEADER)
        modules, _ = _string(content, end)
    else:
        version, modules = _by_pointers(elf, content, header)
    if compiler := _GO.match(version.decode(errors="replace")):
        yield Package("golang", "stdlib", _semantic(compiler))
    # 16 bytes stand before and after, by which running programs find the text.
    yield from _modules(modules[_SENTINEL:-_SENTINEL].decode(errors="replace"))


def _build_info(elf: ELFFile, content: memoryview) -> int | None:
    """Return where the blob begins: in its section, else in the first writable segment."""
    if section := elf.get_section_by_name(".go.buildinfo"):
        start, size = section["sh_offset"], section["sh_size"]
    else:
        writable = [it for it in elf.iter_segments("PT_LOAD") if it["p_flags"] & 2]
        if not writable:
            return None
        start, size = writable[0]["p_offset"], writable[0]["p_filesz"]
    area = bytes(content[start : start + min(size, 1 << 20)])
    found = area.find(_MAGIC)
    while found >= 0 and found % _ALIGNMENT:
        found = area.find(_MAGIC, found + 1)
    return start + found if found >= 0 else None


def _string(content: memoryview, position: int) -> tuple[bytes, int]:
    """Return a string with its length before it, as a varint, and where it ends."""
    length = shift = 0
    while True:
        byte = content[position]
        position += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    if length > TEXT_BYTES:
        raise Damaged("its list of modules is too long")
    return bytes(content[position : position + length]), position + length


def _by_pointers(elf: ELFFile, content: memoryview, header: bytes) -> tuple[bytes, bytes]:
    """Return the version and the modules, as Go before 1.18 points to them."""
    size, is_big = header[14], header[15] & 1
    word = struct.Struct((">" if is_big else "<") + {4: "I", 8: "Q"}[size])
    loaded = [
        (it["p_vaddr"], it["p_filesz"], it["p_offset"]) for it in elf.iter_segments("PT_LOAD")
    ]

    def at(address: int, length: int) -> bytes:
        for start, held, offset in loaded:
            if start <= address < start + held and length <= TEXT_BYTES:
                place = address - start + offset
                return bytes(content[place : place + length])
        raise Damaged("a pointer leads nowhere")

    def string(pointer: int) -> bytes:
        described = at(pointer, 2 * size)
        address, length = (word.unpack_from(described, i * size)[0] for i in range(2))
        return at(address, length) if length else b""

    return tuple(string(word.unpack_from(header, 16 + i * size)[0]) for i in range(2))  # type: ignore[return-value]


def _semantic(compiler: re.Match[str]) -> str:
    """Return Go's version as its advisories write it: 1.21rc2 is 1.21.0-rc.2."""
    release, patch, stage, number = compiler.groups()
    return f"{release}.{patch or 0}" + (f"-{stage}.{number}" if stage else "")


def _modules(text: str) -> Iterator[Package]:
    """Return the modules of lines ``mod`` and ``dep``; ``=>`` stands in for the one before."""
    path = version = ""
    for line in text.splitlines():
        word, *fields = line.split("\t")
        if word == "=>" and len(fields) >= 2:
            path, version = fields[:2]
            continue
        yield from _module(path, version)
        path, version = fields[:2] if word in ("mod", "dep") and len(fields) >= 2 else ("", "")
    yield from _module(path, version)


def _module(path: str, version: str) -> Iterator[Package]:
    if path and version.startswith("v"):  # a main module that was built in its folder is (devel)
        yield Package("golang", path, version)


DETECTOR = Detector("binaries", _wants, _read, largest=BINARY_BYTES, begins=b"\x7fELF")
