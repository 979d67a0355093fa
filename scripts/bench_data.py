#!/usr/bin/env python3
"""Second half of bench-data.sh: pictures in, TEXMEX files out.

usage: bench_data.py WORKDIR OUTDIR [BASE] [QUERIES]

WORKDIR/files holds unpacked packages. One picture is used once even when it
lies there in several sizes; the queries come from pictures of which nothing
is in the base, so that a query's neighbours are other pictures' descriptors.
"""

import json
import pathlib
import re
import struct
import sys

import cv2
import faiss
import numpy as np

PER_PICTURE = 4_000  # strongest descriptors kept of one picture
LONG_SIDE = 1_600  # pixels; larger pictures are scaled down
SMALLEST = 40_000  # pixels; icons are left out
CONTRAST = 0.02  # SIFT's threshold
DIMENSION = 128
NEIGHBOURS = 100
SEED = 20240229

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".tga"}
# Textures that are no photographs (normal maps, masks) and small art.
DULL_FILE = re.compile(
    r"(_norm|_nm|_bump|_gloss|_spec|_local|_n|_s|_g|_nrm|normal|gloss|specular|_glow|_shirt|_pants"
    r"|_reflect|_mask|mask|font|flag|icon|screenshot|_luma|lightmap)_?[0-9]*\.[a-z]+$",
    re.I,
)
DULL_FOLDER = re.compile(
    r"skycultures|stellarium/(nebulae|textures|models|webroot|data)|/icons?/|/gui/"
    r"|/doc/opencv-doc/opencv4/html|/fonts?/|/models?/.*norm|/lightmaps?/|/flags",
    re.I,
)


def blobs_in_resource_file(content):
    """Pictures inside a compiled Qt resource file: a 4-byte big-endian length
    stands before each."""
    signatures = (b"\xff\xd8\xff", b"RIFF", b"\x89PNG\r\n\x1a\n")
    at = 0
    while True:
        starts = [p for p in (content.find(s, at) for s in signatures) if p >= 4]
        if not starts:
            return
        start = min(starts)
        (length,) = struct.unpack(">I", content[start - 4 : start])
        if 2_000 < length <= len(content) - start:
            yield content[start : start + length]
            at = start + length
        else:
            at = start + 3


def encoded_pictures(root):
    """Every encoded picture under `root`, largest first: of one picture in
    several sizes the largest is met first and the others are dropped."""
    found = []
    for path in sorted(root.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        name = "/" + str(path.relative_to(root))
        if path.suffix == ".rcc":
            for number, blob in enumerate(blobs_in_resource_file(path.read_bytes())):
                found.append((-len(blob), f"{name}#{number:05}", blob))
        elif path.suffix.lower() in PICTURES:
            if not DULL_FILE.search(name) and not DULL_FOLDER.search(name):
                found.append((-path.stat().st_size, name, path))
    found.sort(key=lambda item: item[:2])
    for _, _, source in found:
        yield source if isinstance(source, bytes) else source.read_bytes()


def decoded(encoded):
    """The picture in 8 bits a channel without transparency, or None."""
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        return None
    if image.dtype != np.uint8:
        image = (image / 257).astype(np.uint8)
    if image.ndim == 3 and image.shape[2] == 4:  # onto white
        alpha = image[..., 3:].astype(np.float32) / 255
        image = (image[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return image


def at_working_size(image):
    """The picture, smaller if it is large, or None if it is very small."""
    height, width = image.shape[:2]
    if height * width < SMALLEST:
        return None
    scale = LONG_SIDE / max(height, width)
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return image


def grey(encoded):
    """The picture in grey at working size, or None."""
    image = decoded(encoded)
    if image is None:
        return None
    if image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return at_working_size(image)


def difference_hash(image):
    small = cv2.resize(image, (17, 16), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.packbits((small[:, 1:] > small[:, :-1]).ravel()).tobytes()


def descriptors(sift, image):
    """At most PER_PICTURE descriptors, one for each place and scale."""
    points, values = sift.detectAndCompute(image, None)
    if values is None:
        return np.empty((0, DIMENSION), np.uint8)
    strength = np.array([p.response for p in points], np.float32)
    place = np.array([(*p.pt, p.size) for p in points], np.float32)
    order = np.lexsort((np.arange(len(points)), -strength))
    _, first = np.unique(place[order], axis=0, return_index=True)
    keep = order[np.sort(first)][:PER_PICTURE]
    return np.clip(np.rint(values[keep]), 0, 255).astype(np.uint8)


def collect(root):
    cv2.setNumThreads(1)
    cv2.setRNGSeed(1)
    sift = cv2.SIFT_create(nfeatures=0, contrastThreshold=CONTRAST)
    rows, owners, seen, pictures = [], [], set(), 0
    for encoded in encoded_pictures(root):
        image = grey(encoded)
        if image is None:
            continue
        fingerprint = difference_hash(image)
        if fingerprint in seen:
            continue
        seen.add(fingerprint)
        found = descriptors(sift, image)
        rows.append(found)
        owners.append(np.full(len(found), pictures, np.uint32))
        pictures += 1
    return np.concatenate(rows), np.concatenate(owners), pictures


def write_vecs(path, rows, kind):
    """Writes rows to a path, or to a file that is open."""
    if not hasattr(path, "write"):
        with open(path, "wb") as file:
            return write_vecs(file, rows, kind)
    file, rows = path, np.ascontiguousarray(rows, dtype=kind)
    width = rows.shape[1] * rows.dtype.itemsize
    for part in np.array_split(rows, max(1, len(rows) // 100_000)):
        block = np.empty((len(part), 4 + width), np.uint8)
        block[:, :4] = np.frombuffer(struct.pack("<i", rows.shape[1]), np.uint8)
        block[:, 4:] = part.view(np.uint8).reshape(len(part), width)
        file.write(block.tobytes())


def exact_neighbours(base, queries):
    """Exact by integers; ties go to the lower id."""
    index = faiss.IndexFlatL2(DIMENSION)
    index.add(base.astype(np.float32))
    _, near = index.search(queries.astype(np.float32), NEIGHBOURS + 28)
    base, queries = base.astype(np.int32), queries.astype(np.int32)
    result = np.empty((len(queries), NEIGHBOURS), np.int32)
    for row, ids in enumerate(near):
        distance = ((base[ids] - queries[row]) ** 2).sum(axis=1)
        result[row] = ids[np.lexsort((ids, distance))[:NEIGHBOURS]]
    return result


def main():
    work, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    base_count = int(sys.argv[3]) if len(sys.argv) > 3 else 1_000_000
    query_count = int(sys.argv[4]) if len(sys.argv) > 4 else 10_000

    print("extracting descriptors", file=sys.stderr)
    rows, owners, pictures = collect(work / "files")
    # Repeated texture gives equal descriptors; each is kept once.
    _, first = np.unique(rows.view(np.dtype((np.void, DIMENSION))).ravel(), return_index=True)
    first.sort()
    rows, owners = rows[first], owners[first]

    # Whole pictures go to the queries: a tenth of them, while enough remains.
    random = np.random.default_rng(SEED)
    per_picture = np.bincount(owners, minlength=pictures)
    of_queries = np.zeros(pictures, bool)
    taken = 0
    for number, picture in enumerate(random.permutation(pictures)):
        enough = taken >= max(6 * query_count, 60_000) and number >= pictures // 10
        if enough or len(rows) - taken - per_picture[picture] < base_count:
            break
        of_queries[picture] = True
        taken += per_picture[picture]
    queries = rows[random.permutation(np.flatnonzero(of_queries[owners]))[:query_count]]
    base = rows[random.permutation(np.flatnonzero(~of_queries[owners]))[:base_count]]
    if len(base) < base_count or len(queries) < query_count:
        sys.exit(f"only {len(base)} base vectors and {len(queries)} queries came out of the pictures")

    print("searching exactly", file=sys.stderr)
    truth = exact_neighbours(base, queries)
    write_vecs(out / "base.fvecs", base, np.float32)
    write_vecs(out / "query.fvecs", queries, np.float32)
    write_vecs(out / "groundtruth.ivecs", truth, np.int32)
    nearest = ((base[truth[:, 0]].astype(np.int32) - queries.astype(np.int32)) ** 2).sum(axis=1)
    stats = {
        "pictures": pictures,
        "query_pictures": int(of_queries.sum()),
        "descriptors": len(rows),
        "base": len(base),
        "queries": len(queries),
        "mean_nearest_distance": float(np.sqrt(nearest).mean()),
        "queries_in_base": int((nearest == 0).sum()),
    }
    (out / "stats.json").write_text(json.dumps(stats, indent=1) + "\n")
    print(json.dumps(stats))


if __name__ == "__main__":
    main()
