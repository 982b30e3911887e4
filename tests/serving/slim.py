"""Gives back the disk that GPU code and debug information take in the shared libraries below a folder.

torch from PyPI comes with 2.7 GB of CUDA libraries. A machine without a GPU must have them to load torch, and never reads the
code for GPUs in them. A hole in its place keeps every offset of the file and takes no disk. Where the file system knows no
holes, nothing changes.

    python3 slim.py FOLDER
"""

import os
import struct
import subprocess
import sys

SMALLEST = 1 << 20
"""Sections below this many bytes stay: most of the disk is in few of them."""
UNREAD = (".nv_fatbin", "__nv_relfatbin", ".cask_resource", ".debug_", ".symtab", ".strtab")
NO_BITS = 8
"""`SHT_NOBITS`: a section of zeros, which lies in no file."""


def sections(path):
    """The sections of a 64-bit little-endian ELF file, as (name, offset in bytes, size in bytes)."""
    with open(path, "rb") as file:
        header = file.read(64)
        if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
            return []
        (table,) = struct.unpack_from("<Q", header, 40)
        size, count, names_at = struct.unpack_from("<HHH", header, 58)
        file.seek(table)
        rows = [struct.unpack("<IIQQQQ", file.read(size)[:40]) for _ in range(count)]
        file.seek(rows[names_at][4])
        names = file.read(rows[names_at][5])
    return [(names[row[0] : names.index(b"\0", row[0])].decode(), row[4], row[5]) for row in rows if row[1] != NO_BITS]


def slim(path):
    """Makes holes of what nobody reads in one library."""
    for name, offset, size in sections(path):
        if size >= SMALLEST and name.startswith(UNREAD):
            subprocess.run(["fallocate", "--punch-hole", "-o", str(offset), "-l", str(size), path], stderr=subprocess.DEVNULL, check=False)


def main():
    before = after = 0
    for folder, _, names in os.walk(sys.argv[1]):
        for path in (os.path.join(folder, name) for name in names if ".so" in name):
            if os.path.islink(path) or os.path.getsize(path) < SMALLEST:
                continue
            before += os.stat(path).st_blocks * 512
            slim(path)
            after += os.stat(path).st_blocks * 512
    print(f"shared libraries: {before / 1e9:.1f} GB, {after / 1e9:.1f} GB without GPU code and debug information")


main()
