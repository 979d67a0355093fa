#!/usr/bin/env python3
"""torch's side of oboro-learn's example `backbones`: writes a backbone's
weights, random from a fixed seed, and gives torch's time and features.

    backbones.py NAME WEIGHTS [THREADS]

WEIGHTS ends in .pth or .safetensors. Packages: scripts/oracles/networks.txt.
"""
import statistics
import sys
import time

import timm
import torch
import torchvision
from safetensors.torch import save_file

name, weights = sys.argv[1:3]
torch.set_num_threads(int(sys.argv[3]) if len(sys.argv) > 3 else 2)
torch.manual_seed(1)
if name == "vit-s16":
    network = timm.create_model("vit_small_patch16_224").eval()
    features = lambda x: network.forward_features(x)[:, 0]
else:
    network = getattr(torchvision.models, name)().eval()
    classifier, network.fc = network.fc, torch.nn.Identity()
    features = network
state = network.state_dict()
if weights.endswith(".pth"):
    torch.save(state, weights)
else:
    save_file(state, weights)
i = torch.arange(8 * 3 * 224 * 224, dtype=torch.float64)
images = torch.remainder(i * 7919.0 + (i // 97) * 131.0, 1009.0) / 504.5 - 1.0
images = images.reshape(8, 3, 224, 224).float()
times = []
with torch.no_grad():
    for _ in range(7):
        start = time.perf_counter()
        made = features(images)
        times.append((time.perf_counter() - start) * 1e3)
print(f"8 images in {statistics.median(times):.0f} ms (median of {len(times)}; best {min(times):.0f})")
print("first features", made.flatten()[:3].tolist())
