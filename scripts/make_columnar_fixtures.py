#!/usr/bin/env python3
"""Makes the Parquet and Arrow files that oboro-vectors is tested with.

usage: make_columnar_fixtures.py OUTDIR

Needs pyarrow, 26.0.1 for the stored files. Value j of
row r is r + j / 8, exact in every type that is used but the bytes, where it is
r + j. Row r has the id 100 + r or "id-r", and so on: the tests compute what
they expect by the same rules.
"""

import pathlib
import sys

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

D = 6
ROWS = 40


def value(row, place):
    return row + place / 8


def values(rows=ROWS, d=D):
    return [[value(r, j) for j in range(d)] for r in range(rows)]


def fixed(kind, rows=None, d=D):
    return pa.array(rows if rows is not None else values(), pa.list_(kind, d))


def tags(kind=pa.string()):
    """Row r has "all", and "even" or nothing, and "third" twice if 3 | r."""
    rows = []
    for r in range(ROWS):
        names = ["all"] + (["even"] if r % 2 == 0 else [""]) + (["third"] * 2 if r % 3 == 0 else [None])
        rows.append(None if r == 7 else names)
    return pa.array(rows, pa.list_(kind))


def payloads(kind):
    rows = [None if r == 5 else b"payload of %d" % r * (r % 3) for r in range(ROWS)]
    if kind in (pa.string(), pa.large_string(), pa.string_view()):
        rows = [row and row.decode() for row in rows]
    return pa.array(rows, kind)


def text_ids(kind=pa.string()):
    return pa.array([f"id-{r}" for r in range(ROWS)], kind)


def full(vectors=pa.float32(), ids=pa.int64(), payload=pa.binary(), tag=pa.string()):
    columns = {
        "payload": payloads(payload),
        "id": pa.array([100 + r for r in range(ROWS)], ids) if pa.types.is_integer(ids) else text_ids(ids),
        "other": pa.array([r % 2 == 0 for r in range(ROWS)]),
        "embedding": fixed(vectors),
        "tags": tags(tag),
    }
    return pa.table(columns)


def holes():
    """Rows that must be refused: no vector at 3, a missing value at 4, NaN at
    5, infinity at 6, no id at 8, an id below zero at 9."""
    rows = values()
    rows[3] = None
    rows[4] = [None] + rows[4][1:]
    rows[5] = [float("nan")] + rows[5][1:]
    rows[6] = [float("inf")] + rows[6][1:]
    ids = [100 + r for r in range(ROWS)]
    ids[8], ids[9] = None, -1
    return pa.table({"id": pa.array(ids, pa.int64()), "vector": fixed(pa.float32(), rows)})


def ragged(kind=pa.list_(pa.float64())):
    """Row 2 is empty, row 3 short, row 4 long, row 5 missing."""
    rows = values()
    rows[2], rows[3], rows[4], rows[5] = [], rows[3][:-1], rows[4] + [0.0], None
    ids = [f"id-{r}" for r in range(ROWS)]
    ids[8], ids[9] = None, ""
    return pa.table({"v": pa.array(rows, kind), "id": pa.array(ids, pa.string())})


def bytes_table(kind):
    rows = [[r + j for j in range(D)] for r in range(ROWS)]
    return pa.table({"v": fixed(kind, rows)})


def half():
    rows = [[np.float16(x) for x in row] for row in values()]
    return pa.table({"v": fixed(pa.float16(), rows)})


def parquet(path, table, **options):
    # Small row groups and pages, so that every boundary is crossed.
    options = {"row_group_size": 16, "data_page_size": 64, "write_batch_size": 4} | options
    pq.write_table(table, path, **options)


def arrow(path, table, stream=False, compression=None, schema=None):
    options = pa.ipc.IpcWriteOptions(compression=compression)
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with new(str(path), schema or table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=16)


def dictionaries(path):
    """A stream whose dictionary of tags grows and is then replaced."""
    kind = pa.dictionary(pa.int8(), pa.string())
    schema = pa.schema([("v", pa.list_(pa.float32(), D)), ("tags", kind), ("id", kind)])
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    names = [["a"], ["a", "b"], ["c", "b"]]
    with pa.ipc.new_stream(str(path), schema, options=options) as writer:
        for number, dictionary in enumerate(names):
            rows = [[value(r, j) for j in range(D)] for r in range(4 * number, 4 * number + 4)]
            keys = pa.array([0, len(dictionary) - 1, None, 0], pa.int8())
            ids = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3], pa.int8()),
                                                 pa.array([f"id-{4 * number + r}" for r in range(4)]))
            cells = pa.DictionaryArray.from_arrays(keys, pa.array(dictionary))
            writer.write_batch(pa.record_batch([fixed(pa.float32(), rows), cells, ids], schema=schema))


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    parquet(out / "full-snappy.parquet", full(), compression="snappy")
    parquet(out / "full-plain-v2.parquet", full(pa.float64(), pa.uint64(), pa.large_binary(), pa.large_string()),
            compression="none", data_page_version="2.0", use_dictionary=False)
    parquet(out / "full-gzip-text.parquet", full(pa.float32(), pa.string(), pa.string()), compression="gzip",
            use_dictionary=["id", "tags.list.element"])
    parquet(out / "full-lz4-large.parquet", full(pa.float32(), pa.large_string(), pa.large_string()), compression="lz4")
    # Without Arrow's own schema, as other writers leave it: lists of any length.
    parquet(out / "full-foreign.parquet", full(pa.float32(), pa.int32()), store_schema=False)
    parquet(out / "holes.parquet", holes())
    parquet(out / "ragged.parquet", ragged())
    parquet(out / "half.parquet", half())
    parquet(out / "uint8.parquet", bytes_table(pa.uint8()))
    parquet(out / "zstd.parquet", full(), compression="zstd")
    parquet(out / "brotli.parquet", full(), compression="brotli")
    two = full().append_column("more", fixed(pa.float64()))
    parquet(out / "two-lists.parquet", two)
    parquet(out / "no-lists.parquet", full().select(["id", "other", "payload"]))
    parquet(out / "bad-id.parquet", full().set_column(1, "id", pa.array([1.5] * ROWS)))
    parquet(out / "no-rows.parquet", full().slice(0, 0))

    arrow(out / "full.arrow", full())
    arrow(out / "full-lz4.feather", full(pa.float32(), pa.string()), compression="lz4")
    arrow(out / "full.arrows", full(pa.float64(), pa.uint16()), stream=True)
    arrow(out / "full-lz4.arrows", full(pa.float32(), pa.large_string(), pa.large_string()), stream=True, compression="lz4")
    arrow(out / "views.arrow", full(pa.float32(), pa.string_view(), pa.binary_view(), pa.string_view()))
    arrow(out / "holes.arrows", holes(), stream=True)
    arrow(out / "ragged.arrow", ragged(pa.large_list(pa.float32())))
    arrow(out / "int8.arrow", bytes_table(pa.int8()))
    arrow(out / "half.arrows", half(), stream=True)
    arrow(out / "zstd.arrow", full(), compression="zstd")
    dictionaries(out / "dictionaries.arrows")
    pyarrow.feather.write_feather(pa.table({"x": [1, 2, 3]}), str(out / "version-1.feather"), version=1)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
