#!/usr/bin/env python3
"""Makes the pictures of `oboro learn demo`: the first 300 of each class of the
test part of Fashion-MNIST, as two compressed IDX files.

    scripts/make_garments.py FOLDER

FOLDER is that of Debian's package dataset-fashion-mnist,
/usr/share/datasets/fashion-mnist. The files come out the same, byte for byte,
with any zlib that compresses as zlib 1.2 and 1.3 do at level 9.
"""
import gzip
import hashlib
import io
import struct
import sys
from pathlib import Path

EACH = 300
SIZE = 28 * 28
TARGET = Path(__file__).parent.parent / "crates/oboro-learn/data"


def read(path):
    with gzip.open(path) as file:
        return file.read()


def write(name, content):
    buffer = io.BytesIO()
    # No name and no time in the header.
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as file:
        file.write(content)
    (TARGET / name).write_bytes(buffer.getvalue())
    print(f"{hashlib.sha256(buffer.getvalue()).hexdigest()}  {name}  {len(buffer.getvalue())} bytes")


def main():
    folder = Path(sys.argv[1])
    images = read(folder / "t10k-images-idx3-ubyte.gz")[16:]
    labels = read(folder / "t10k-labels-idx1-ubyte.gz")[8:]
    counts = [0] * 10
    chosen = []
    for row, label in enumerate(labels):
        if counts[label] < EACH:
            counts[label] += 1
            chosen.append(row)
    picked = b"".join(images[row * SIZE : (row + 1) * SIZE] for row in chosen)
    header = struct.pack(">IIII", 0x803, len(chosen), 28, 28)
    write("garments-images-idx3-ubyte.gz", header + picked)
    header = struct.pack(">II", 0x801, len(chosen))
    write("garments-labels-idx1-ubyte.gz", header + bytes(labels[row] for row in chosen))


main()
