#!/usr/bin/env python3
"""Times faiss's product-quantizer scans over a TEXMEX folder, one thread.

    faiss_scan.py DIRECTORY [--queries 500] [--seed 7]

DIRECTORY holds base.fvecs, query.fvecs and groundtruth.ivecs. For 8-bit codes,
4-bit fast scan, and fast scan with exact re-ranking of 100, it prints one JSON
object: medians of wall and thread-CPU milliseconds of single queries, recall,
and what training and adding took. Needs numpy and faiss-cpu.
"""

import argparse
import json
import os
import sys
import time

# Before numpy and faiss start their thread pools.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import faiss
import numpy as np


def read(path, kind):
    """Rows of .fvecs or .ivecs, each led by its dimension."""
    words = np.fromfile(path, np.int32)
    rows = words.reshape(-1, words[0] + 1)[:, 1:]
    return np.ascontiguousarray(rows.view(kind))


def measure(index, queries, truth, depth):
    """Medians over single queries, and recall of the same queries."""
    wall, cpu, found = [], [], []
    for query in queries:
        start = time.perf_counter(), time.thread_time()
        _, ids = index.search(query[None, :], depth)
        wall.append(time.perf_counter() - start[0])
        cpu.append(time.thread_time() - start[1])
        found.append(ids[0])
    hits = [len(np.intersect1d(f[:10], t[:10])) for f, t in zip(found, truth)]
    first = [t[0] in f[:10] for f, t in zip(found, truth)]
    return {
        "wall_ms": round(float(np.median(wall)) * 1e3, 4),
        "cpu_ms": round(float(np.median(cpu)) * 1e3, 4),
        "cpu_ms_least": round(float(np.min(cpu)) * 1e3, 4),
        "10-recall@10": round(float(np.mean(hits)) / 10, 4),
        "1-recall@10": round(float(np.mean(first)), 4),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory")
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()

    faiss.omp_set_num_threads(1)
    path = lambda name: os.path.join(options.directory, name)
    base = read(path("base.fvecs"), np.float32)
    queries = read(path("query.fvecs"), np.float32)[: options.queries]
    truth = read(path("groundtruth.ivecs"), np.int32)[: options.queries]
    order = np.random.default_rng(options.seed).permutation(len(base))
    sample = np.ascontiguousarray(base[order[:65536]])

    results = {}
    for key in ("PQ16x8", "PQ32x8", "PQ32x4fs", "PQ64x4fs"):
        index = faiss.index_factory(base.shape[1], key)
        start = time.thread_time()
        index.train(sample)
        trained = time.thread_time()
        index.add(base)
        build = {
            "train_cpu_s": round(trained - start, 2),
            "add_cpu_s": round(time.thread_time() - trained, 2),
        }
        results[key] = measure(index, queries, truth, 10) | build
        if key.endswith("fs"):
            refined = faiss.IndexRefineFlat(index, faiss.swig_ptr(base))
            refined.k_factor = 10
            results[key + " + exact re-rank of 100"] = measure(refined, queries, truth, 10)
        print(key, results[key], file=sys.stderr)
    print(
        json.dumps(
            {
                "faiss": faiss.__version__,
                "options": faiss.get_compile_options().strip(),
                "vectors": len(base),
                "queries": len(queries),
                "results": results,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
