#!/usr/bin/env python3
"""GIST descriptors of pieces of pictures, in 960 dimensions.

usage: bench_gist.py WORKDIR OUTDIR [BASE] [QUERIES]

WORKDIR/files holds unpacked packages (bench-data.sh). From every picture,
square pieces of random place and size are taken and scaled to 32 x 32, the
size that GIST-1M was made at. The descriptor is Oliva and Torralba's ("Modeling
the shape of the scene", 2001) as their LMgist computes it: local contrast
normalization, 8 + 8 + 4 Gabor filters of three scales, mean magnitude in 4 x 4
blocks, for each of three channels: 20 x 16 x 3 = 960. Queries come from
pictures of which nothing is in the base. WORKDIR/gist keeps what is done, so
that a stopped run goes on.

Some pieces have next to no texture: their descriptors lie in a clump at the
origin, many times closer to each other than all else. OUTDIR/contrast has the
same base with the queries that do not.
"""

import json
import pathlib
import sys

import cv2
import faiss
import numpy as np
import scipy.fft

from bench_data import at_working_size, decoded, difference_hash, encoded_pictures, write_vecs

SIDE = 32
PAD = 4  # pixels on each side, mirrored, as LMgist's 32 of 256
ORIENTATIONS = (8, 8, 4)
BLOCKS = 4
DIMENSION = sum(ORIENTATIONS) * BLOCKS * BLOCKS * 3
CONTRAST = 4  # cycles an image, of the normalization
CONTRAST_PAD = 5
SMALLEST_SIDE = 48  # pixels of a piece
FLATTEST = 8.0  # standard deviation of a piece
BATCH = 250
CHUNK = 50_000
NEIGHBOURS = 100
TEXTURE = 0.5  # least squared length of a query in OUTDIR/contrast
SEED = 20240229


def frequencies(size):
    """Frequencies in cycles a field, as fft2 orders them."""
    line = scipy.fft.fftfreq(size, 1 / size)
    return np.meshgrid(line, line)


def gabor_filters(size):
    fx, fy = frequencies(size)
    radius, angle = np.hypot(fx, fy), np.arctan2(fy, fx)
    filters = []
    for scale, count in enumerate(ORIENTATIONS):
        for turn in range(count):
            turned = angle + np.pi / count * turn
            turned += 2 * np.pi * (turned < -np.pi) - 2 * np.pi * (turned > np.pi)
            across = radius / size / (0.3 / 1.85**scale) - 1
            width = 16 * count**2 / 32**2
            filters.append(np.exp(-10 * 0.35 * across**2 - 2 * width * np.pi * turned**2))
    return np.array(filters, np.float32)


def lowpass(size):
    fx, fy = frequencies(size)
    s1 = CONTRAST / np.sqrt(np.log(2))
    return np.exp(-(fx**2 + fy**2) / s1**2).astype(np.float32)


FILTERS = gabor_filters(SIDE + 2 * PAD)
LOWPASS = lowpass(SIDE + 2 * CONTRAST_PAD)


def padded(images, pad):
    return np.pad(images, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode="symmetric")


def filtered(images, response):
    return scipy.fft.ifft2(scipy.fft.fft2(images) * response)


def normalized(pieces):
    """Pieces (n, 32, 32, 3) of bytes, as (n, 3, 32, 32), contrast made even."""
    images = np.log1p(pieces.transpose(0, 3, 1, 2).astype(np.float32))
    images = padded(images, CONTRAST_PAD)
    images = images - filtered(images, LOWPASS).real
    mean = images.mean(axis=1, keepdims=True)
    deviation = np.sqrt(np.abs(filtered(mean * mean, LOWPASS)))
    images = images / (0.2 + deviation)
    inner = slice(CONTRAST_PAD, CONTRAST_PAD + SIDE)
    return images[..., inner, inner]


def descriptors(pieces):
    spectra = scipy.fft.fft2(padded(normalized(pieces), PAD).astype(np.float32))
    out = np.empty((len(pieces), 3, len(FILTERS), BLOCKS * BLOCKS), np.float32)
    inner, step = slice(PAD, PAD + SIDE), SIDE // BLOCKS
    for number, response in enumerate(FILTERS):
        magnitude = np.abs(scipy.fft.ifft2(spectra * response))[..., inner, inner]
        blocks = magnitude.reshape(len(pieces), 3, BLOCKS, step, BLOCKS, step).mean(axis=(3, 5))
        out[:, :, number] = blocks.reshape(len(pieces), 3, -1)
    return out.reshape(len(pieces), DIMENSION)


def colour_pictures(root):
    """Every picture once, in colour."""
    seen = set()
    for encoded in encoded_pictures(root):
        image = decoded(encoded)
        image = None if image is None else at_working_size(image)
        if image is None:
            continue
        if image.ndim == 2:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        fingerprint = difference_hash(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
        if fingerprint not in seen:
            seen.add(fingerprint)
            yield image[..., :3]


def pieces_of(image, count, random):
    """Up to `count` pieces of a picture that are not flat."""
    height, width = image.shape[:2]
    largest = min(height, width)
    found = []
    for _ in range(2 * count):
        if len(found) == count:
            break
        # Sizes even in the logarithm: as many small pieces as large ones.
        side = int(round(SMALLEST_SIDE * (largest / SMALLEST_SIDE) ** random.random()))
        y, x = random.integers(0, height - side + 1), random.integers(0, width - side + 1)
        piece = cv2.resize(image[y : y + side, x : x + side], (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        if piece.std() >= FLATTEST:
            found.append(piece)
    return found


def collect(root, folder, wanted):
    """More pieces than wanted, since a tenth of the pictures is for queries
    and some yield fewer; each one's picture; how many pictures there are."""
    cv2.setNumThreads(1)
    random = np.random.default_rng(SEED)
    pictures = sum(1 for _ in colour_pictures(root))
    each = -(-wanted * 14 // (9 * max(1, pictures)))
    shape = (pictures * each, SIDE, SIDE, 3)
    pieces = np.lib.format.open_memmap(folder / "pieces.partial.npy", "w+", np.uint8, shape)
    owners = []
    for picture, image in enumerate(colour_pictures(root)):
        for piece in pieces_of(image, each, random):
            pieces[len(owners)] = piece
            owners.append(picture)
    pieces.flush()
    np.savez(folder / "owners.npz", owners=np.array(owners, np.uint32), pictures=pictures)
    (folder / "pieces.partial.npy").rename(folder / "pieces.npy")


def split(owners, pictures, base_count, query_count):
    """Which pieces are base and which are queries; every tenth picture is for
    queries."""
    random = np.random.default_rng(SEED)
    of_queries = np.zeros(pictures, bool)
    of_queries[random.permutation(pictures)[: max(1, pictures // 10)]] = True
    queries = random.permutation(np.flatnonzero(of_queries[owners]))[:query_count]
    base = random.permutation(np.flatnonzero(~of_queries[owners]))[:base_count]
    if len(base) < base_count or len(queries) < query_count:
        sys.exit(f"only {len(base)} base pieces and {len(queries)} queries; ask for fewer")
    return base, queries, int(of_queries.sum())


def computed(folder, pieces, chosen, name):
    """The descriptors of the chosen pieces, chunk after chunk; a chunk that is
    there is not computed again."""
    for start in range(0, len(chosen), CHUNK):
        path = folder / f"{name}-{start:07}.npy"
        if not path.exists():
            part = chosen[start : start + CHUNK]
            rows = np.concatenate(
                [descriptors(pieces[part[at : at + BATCH]]) for at in range(0, len(part), BATCH)]
            )
            partial = path.with_suffix(".partial.npy")
            np.save(partial, rows)
            partial.rename(path)
            print(f"{name}: {start + len(part)} of {len(chosen)}", file=sys.stderr, flush=True)
        yield np.load(path)


def main():
    work, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    base_count = int(sys.argv[3]) if len(sys.argv) > 3 else 1_000_000
    query_count = int(sys.argv[4]) if len(sys.argv) > 4 else 1_000
    folder = work / f"gist-{base_count}"
    folder.mkdir(parents=True, exist_ok=True)
    faiss.omp_set_num_threads(1)

    if not (folder / "pieces.npy").exists():
        print("cutting pictures", file=sys.stderr, flush=True)
        collect(work / "files", folder, base_count + query_count)
    pieces = np.load(folder / "pieces.npy", mmap_mode="r")
    stored = np.load(folder / "owners.npz")
    owners, pictures = stored["owners"], int(stored["pictures"])
    base, queries, query_pictures = split(owners, pictures, base_count, query_count)

    queries = np.concatenate(list(computed(folder, pieces, queries, "query")))
    index = faiss.IndexFlatL2(DIMENSION)
    near = None
    done, best = 0, []
    with open(out / "base.fvecs", "wb") as file:
        for rows in computed(folder, pieces, base, "base"):
            write_vecs(file, rows, np.float32)
            index.reset()
            index.add(rows)
            distance, ids = index.search(queries, min(NEIGHBOURS, len(rows)))
            best.append((distance, ids + done))
            done += len(rows)
            # The best of the chunks so far; ties go to the lower id.
            distance = np.concatenate([part[0] for part in best], axis=1)
            ids = np.concatenate([part[1] for part in best], axis=1)
            order = np.lexsort((ids, distance), axis=1)[:, :NEIGHBOURS]
            distance = np.take_along_axis(distance, order, axis=1)
            near = np.take_along_axis(ids, order, axis=1)
            best = [(distance, near)]
    write_vecs(out / "query.fvecs", queries, np.float32)
    write_vecs(out / "groundtruth.ivecs", near, np.int32)
    contrast = out / "contrast"
    contrast.mkdir(exist_ok=True)
    (contrast / "base.fvecs").unlink(missing_ok=True)
    (contrast / "base.fvecs").symlink_to(pathlib.Path("..") / "base.fvecs")
    kept = (queries**2).sum(axis=1) >= TEXTURE
    write_vecs(contrast / "query.fvecs", queries[kept], np.float32)
    write_vecs(contrast / "groundtruth.ivecs", near[kept], np.int32)
    stats = {
        "pictures": pictures,
        "query_pictures": query_pictures,
        "pieces": len(owners),
        "base": done,
        "queries": len(queries),
        "queries_with_contrast": int(kept.sum()),
        "dimension": DIMENSION,
        "mean_nearest_distance": float(np.sqrt(best[0][0][:, 0]).mean()),
        "mean_100th_distance": float(np.sqrt(best[0][0][:, -1]).mean()),
    }
    (out / "stats.json").write_text(json.dumps(stats, indent=1) + "\n")
    print(json.dumps(stats))


if __name__ == "__main__":
    main()
