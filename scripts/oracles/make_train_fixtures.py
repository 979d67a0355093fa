#!/usr/bin/env python3
"""Writes the fixtures of oboro-learn's trainer.

    python3 scripts/oracles/make_train_fixtures.py

It wants the packages of requirements.txt. `adamw.json` holds parameters after
each of 20 steps of torch's AdamW with groups, a warm-up, a falling rate and a
clipped gradient; `events.bin` is a TensorBoard file written by TensorBoard.
"""
import json
import math
import pathlib

import torch
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "crates/oboro-learn/tests/fixtures/train"
STEPS, WARM_UP, RATE, LAST, CLIP = 20, 5, 0.02, 0.1, 1.5


def factor(step):
    """Linear warm-up, then half a cosine to LAST."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    done = (step - WARM_UP) / (STEPS - WARM_UP)
    return LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * done))


def adamw():
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float32)
    names = {"weight": (3, 4), "bias": (4,), "head": (4, 2), "proxies": (5, 2)}
    first = {name: draw(*shape) for name, shape in names.items()}
    parameters = {name: value.clone().requires_grad_() for name, value in first.items()}
    groups = [
        {"params": [parameters["weight"]], "lr": RATE, "weight_decay": 0.1},
        {"params": [parameters["bias"]], "lr": RATE, "weight_decay": 0.0},
        {"params": [parameters["head"]], "lr": RATE * 2, "weight_decay": 0.05},
        {"params": [parameters["proxies"]], "lr": RATE * 100, "weight_decay": 0.01},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-8)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    gradients, norms, after = [], [], []
    for step in range(STEPS):
        # Some steps stay below the norm that is clipped at, some do not.
        scale = 0.05 if step % 3 == 0 else 1.0
        gradients.append({name: draw(*shape) * scale for name, shape in names.items()})
        for name, parameter in parameters.items():
            parameter.grad = gradients[-1][name].clone()
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP).item())
        optimizer.step()
        schedule.step()
        after.append({name: p.detach().flatten().tolist() for name, p in parameters.items()})
    flat = lambda values: {name: value.flatten().tolist() for name, value in values.items()}
    return {
        "first": flat(first),
        "gradients": [flat(g) for g in gradients],
        "norms": norms,
        "after": after,
    }


class Bytes(bytearray):
    """A file in memory, as the record writer wants one."""

    def write(self, data):
        self.extend(data)


def events():
    out = Bytes()
    writer = RecordWriter(out)
    writer.write(Event(wall_time=1.5, file_version="brain.Event:2").SerializeToString())
    event = Event(wall_time=2.5, step=7)
    event.summary.value.add(tag="loss", simple_value=0.25)
    event.summary.value.add(tag="rate", simple_value=1e-4)
    writer.write(event.SerializeToString())
    return bytes(out)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "adamw.json").write_text(json.dumps(adamw()) + "\n")
    (FOLDER / "events.bin").write_bytes(events())


if __name__ == "__main__":
    main()
