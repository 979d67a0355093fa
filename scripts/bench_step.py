#!/usr/bin/env python3
"""Training steps of the small network here and in PyTorch, in turn.

    cargo build --release -p oboro-learn --features avx512 --example step_rate
    python3 scripts/bench_step.py [--rounds 3] [--steps 15] [--threads 2] [--parts 2] [--binary PATH]

Both run four convolutions (64, 64, 128, 128 channels) with batch
normalization, ReLU and pooling on 128 images of 28 x 28 pixels, a head of 128
dimensions, Proxy Anchor over 32 classes, a clipped gradient and AdamW with two
groups. Needs torch; prints medians of the steps of all rounds but each round's
first three.
"""
import argparse
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
CLASSES, BATCH, SIDE, DIMENSIONS, WARM = 32, 128, 28, 128, 3


def torch_steps(steps, threads):
    import torch
    from torch import nn
    from torch.nn import functional

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    layers, width = [], 1
    for index, channels in enumerate([64, 64, 128, 128]):
        convolution = nn.Conv2d(width, channels, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(channels), nn.ReLU()]
        if index < 3:
            layers.append(nn.MaxPool2d(2))
        width = channels
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, DIMENSIONS))
    proxies = nn.Parameter(torch.randn(CLASSES, DIMENSIONS))
    groups = [
        {"params": network.parameters(), "lr": 1e-4},
        {"params": [proxies], "lr": 1e-2},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
    parameters = [*network.parameters(), proxies]
    images = torch.rand(BATCH, 1, SIDE, SIDE)
    labels = torch.arange(BATCH) % CLASSES
    positive = functional.one_hot(labels, CLASSES).bool()
    none = torch.tensor(float("-inf"))

    def terms(values, mask):
        values = torch.where(mask, values, none)
        zero = torch.zeros(1, values.shape[1])
        return torch.logsumexp(torch.cat([zero, values]), 0)

    times = []
    for _ in range(steps):
        start = time.perf_counter()
        embeddings = functional.normalize(network(images))
        cosines = embeddings @ functional.normalize(proxies).T
        near = terms(-32 * (cosines - 0.1), positive).sum() / positive.any(0).sum()
        far = terms(32 * (cosines + 0.1), ~positive).sum() / CLASSES
        loss = near + far
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
        times.append((time.perf_counter() - start) * 1e3)
        assert loss.isfinite()
    return times


def our_steps(binary, steps, parts, threads):
    command = [binary, str(steps), str(parts), str(threads)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(line) for line in output.split()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", type=int, default=2)
    parser.add_argument("--binary", default=ROOT / "target/release/examples/step_rate")
    parser.add_argument("--torch-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.torch_only:
        print(*torch_steps(options.steps, options.threads), sep="\n")
        return
    ours, theirs = [], []
    for number in range(options.rounds):
        steps = our_steps(options.binary, options.steps, options.parts, options.threads)
        ours += steps[WARM:]
        # A process of its own, as ours has.
        command = [sys.executable, __file__, "--torch-only", f"--steps={options.steps}",
                   f"--threads={options.threads}"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        theirs += [float(line) for line in output.split()][WARM:]
    mine, peer = statistics.median(ours), statistics.median(theirs)
    print(f"here     {mine:7.1f} ms a step ({1e3 / mine:.2f} steps/s)")
    print(f"PyTorch  {peer:7.1f} ms a step ({1e3 / peer:.2f} steps/s)")
    print(f"steps/s of PyTorch's: {peer / mine:.2f}")


if __name__ == "__main__":
    main()
