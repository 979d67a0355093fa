#!/usr/bin/env python3
"""Writes the fixtures of oboro-learn's networks: small weights, what torch,
torchvision and timm make of them, and the names of the full networks' tensors.

    python3 -m venv venv && venv/bin/pip install -r scripts/oracles/networks.txt
    venv/bin/python scripts/oracles/make_network_fixtures.py

Weights are random from a fixed seed; nothing is downloaded. Files of weights
are made the way published ones are: safetensors, a checkpoint of PyTorch with
the weights under `state_dict`, ONNX with named initializers.
"""
import json
import pathlib

import geoopt
import numpy
import onnx
import PIL.Image
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE.parent.parent / "crates/oboro-learn/tests/fixtures/networks"
torch.set_num_threads(1)


class SmallResNet(ResNet):
    """torchvision's, with fewer channels."""

    def __init__(self, block, layers, width):
        super().__init__(block, [1, 1, 1, 1], num_classes=3)
        self.inplanes = width
        self.conv1 = torch.nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(width)
        self.layer1 = self._make_layer(block, width, layers[0])
        self.layer2 = self._make_layer(block, 2 * width, layers[1], stride=2)
        self.layer3 = self._make_layer(block, 4 * width, layers[2], stride=2)
        self.layer4 = self._make_layer(block, 8 * width, layers[3], stride=2)
        self.fc = torch.nn.Linear(8 * width * block.expansion, 3)

    def features(self, x):
        fc, self.fc = self.fc, torch.nn.Identity()
        x = self(x)
        self.fc = fc
        return x


class Layer(torch.nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv = torch.nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm2d(outputs)


class Convolutional(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        sizes = [1, *channels]
        self.layers = torch.nn.ModuleList(Layer(a, b) for a, b in zip(sizes, sizes[1:]))

    def features(self, x):
        for index, layer in enumerate(self.layers):
            x = torch.relu(layer.norm(layer.conv(x)))
            if index < 3:
                x = torch.nn.functional.max_pool2d(x, 2)
        return x.mean((2, 3))


class Heads(torch.nn.Module):
    def __init__(self, features, euclidean, hyperbolic):
        super().__init__()
        self.euclidean = torch.nn.Linear(features, euclidean)
        self.hyperbolic = torch.nn.Linear(features, hyperbolic)

    def forward(self, h, curvature, clip):
        e = torch.nn.functional.normalize(self.euclidean(h))
        u = self.hyperbolic(h)
        u = u * torch.clamp(clip / u.norm(dim=1, keepdim=True), max=1.0)
        return e, geoopt.PoincareBall(c=curvature).expmap0(u)


class Whole(torch.nn.Module):
    def __init__(self, backbone, heads):
        super().__init__()
        self.backbone, self.heads = backbone, heads


def randomise(module, seed):
    """Every value away from its first one, so that none can be left out."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_(1.0 + 0.3 * noise.abs())
            elif value.dim() >= 2:
                value.copy_(noise / value[0].numel() ** 0.5)
            elif name.endswith("weight"):
                value.copy_(1.0 + 0.2 * noise)
            else:
                value.copy_(0.2 * noise)
    return module.eval()


def images(*shape):
    """Values that any language computes alike."""
    i = torch.arange(numpy.prod(shape), dtype=torch.float64)
    values = torch.remainder(i * 7919.0 + (i // 97) * 131.0, 1009.0) / 504.5 - 1.0
    return values.reshape(shape).float()


def watch(prefix, running):
    """Notes what running statistics become. burn, unlike torch, takes the
    variance of the batch as it is, without Bessel's correction."""

    def hook(module, inputs):
        with torch.no_grad():
            x = inputs[0].transpose(0, 1).flatten(1)
            mean, variance = x.mean(1), x.var(1, unbiased=False)
            running[f"{prefix}mean"] = (0.9 * module.running_mean + 0.1 * mean).tolist()
            running[f"{prefix}var"] = (0.9 * module.running_var + 0.1 * variance).tolist()

    return hook


def case(name, network, features, shape, settings):
    """Outputs for evaluation, then one step of training."""
    x = images(*shape)
    expected = {"settings": settings, "images": list(shape)}
    with torch.no_grad():
        expected["features"] = features(network)(x).flatten().tolist()
    copy = randomise(network, SEEDS[name]).train()
    running, hooks = {}, []
    for layer, module in copy.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module.num_features <= 16:
            hook = watch(f"{layer}.running_", running)
            hooks.append(module.register_forward_pre_hook(hook))
    h = features(copy)(x)
    for hook in hooks:
        hook.remove()
    weights = images(h.shape[1])
    (h * weights).sum().backward()
    expected["training_features"] = h.detach().flatten().tolist()
    gradients = {n: p.grad for n, p in copy.named_parameters() if p.grad is not None}
    expected["gradient_lengths"] = {n: g.norm().item() for n, g in gradients.items()}
    expected["running"] = running
    randomise(network, SEEDS[name])
    return expected


SEEDS = {"basic": 1, "bottleneck": 2, "transformer": 3, "convolutional": 4}


def resized():
    """A colour image and what PIL and torchvision make of it."""
    width, height, side, enlarge = 41, 30, 16, 1.25
    i = numpy.arange(width * height * 3)
    x, y = i // 3 % width, i // 3 // width
    pixels = ((x * x // 3 + 5 * y + 90 * (i % 3) + 40 * (x * y % 2)) % 256).astype("uint8")
    image = PIL.Image.fromarray(pixels.reshape(height, width, 3))
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(int(side * enlarge)),
            torchvision.transforms.CenterCrop(side),
        ]
    )
    made = numpy.asarray(transform(image)).transpose(2, 0, 1)
    return {
        "width": width,
        "height": height,
        "side": side,
        "enlarge": enlarge,
        "expected": made.flatten().tolist(),
    }


def shapes(network):
    return {
        name: list(value.shape)
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    cases = {}

    def colour(side):
        return {
            "channels": 3,
            "side": side,
            "enlarge": 1.0,
            "mean": [0.5] * 3,
            "deviation": [0.5] * 3,
        }

    basic = randomise(SmallResNet(BasicBlock, [2, 1, 1, 1], 4), SEEDS["basic"])
    cases["basic"] = case(
        "basic",
        basic,
        lambda n: n.features,
        (2, 3, 40, 40),
        {
            "input": colour(40),
            "backbone": {
                "kind": "residual-network",
                "blocks": [2, 1, 1, 1],
                "bottleneck": False,
                "width": 4,
            },
            "heads": {"euclidean": 3},
        },
    )
    save_file(basic.state_dict(), OUT / "basic.safetensors")

    bottleneck = randomise(SmallResNet(Bottleneck, [1, 2, 1, 1], 2), SEEDS["bottleneck"])
    cases["bottleneck"] = case(
        "bottleneck",
        bottleneck,
        lambda n: n.features,
        (2, 3, 64, 64),
        {
            "input": colour(64),
            "backbone": {
                "kind": "residual-network",
                "blocks": [1, 2, 1, 1],
                "bottleneck": True,
                "width": 2,
            },
            "heads": {"euclidean": 3},
        },
    )
    state = {f"module.{n}": v for n, v in bottleneck.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, OUT / "bottleneck.pth")

    transformer = timm.models.vision_transformer.VisionTransformer(
        img_size=24, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=3
    )
    randomise(transformer, SEEDS["transformer"])
    cases["transformer"] = case(
        "transformer",
        transformer,
        lambda n: lambda x: n.forward_features(x)[:, 0],
        (2, 3, 24, 24),
        {
            "input": colour(24),
            "backbone": {
                "kind": "vision-transformer",
                "patch": 8,
                "width": 24,
                "depth": 2,
                "heads": 3,
            },
            "heads": {"euclidean": 3},
        },
    )
    state = {f"model.{n}": v.half() for n, v in transformer.state_dict().items()}
    save_file(state, OUT / "transformer_half.safetensors")
    save_file(transformer.state_dict(), OUT / "transformer.safetensors")

    convolutional = randomise(Convolutional([4, 4, 8, 8]), SEEDS["convolutional"])
    settings = {
        "input": {
            "channels": 1,
            "side": 28,
            "enlarge": 1.0,
            "mean": [0.5],
            "deviation": [0.25],
        },
        "backbone": {"kind": "convolutional", "channels": [4, 4, 8, 8]},
        "heads": {
            "euclidean": 5,
            "hyperbolic": {"dims": 3, "curvature": 0.3, "clip": 1.5},
        },
    }
    shape = (3, 1, 28, 28)
    expected = case("convolutional", convolutional, lambda n: n.features, shape, settings)
    heads = randomise(Heads(8, 5, 3), 5)
    with torch.no_grad():
        # One image short of the clip, the others beyond it.
        heads.hyperbolic.weight.mul_(2.0)
        h = convolutional.features(images(*shape))
        lengths = heads.hyperbolic(h).norm(dim=1)
        heads.hyperbolic.weight.mul_(1.5 / lengths.median())
        heads.hyperbolic.bias.mul_(1.5 / lengths.median())
        lengths = heads.hyperbolic(h).norm(dim=1)
        assert lengths.min() < 1.47 and lengths.max() > 1.51, lengths
        e, z = heads(h, 0.3, 1.5)
    expected["euclidean"] = e.flatten().tolist()
    expected["hyperbolic"] = z.flatten().tolist()
    cases["convolutional"] = expected
    whole = {
        n: v
        for n, v in Whole(convolutional, heads).state_dict().items()
        if not n.endswith("num_batches_tracked")
    }
    save_file(
        whole,
        OUT / "whole.safetensors",
        metadata={"oboro_network": json.dumps(settings)},
    )
    tensors = [
        onnx.numpy_helper.from_array(v.numpy(), n) for n, v in convolutional.state_dict().items()
    ]
    graph = onnx.helper.make_graph([], "weights", [], [], initializer=tensors)
    onnx.save(onnx.helper.make_model(graph), OUT / "convolutional.onnx")

    with torch.device("meta"):
        full = {
            "resnet18": shapes(torchvision.models.resnet18()),
            "resnet50": shapes(torchvision.models.resnet50()),
            "vit_s16": shapes(timm.create_model("vit_small_patch16_224")),
        }
    content = {"cases": cases, "full": full, "resized": resized()}
    (OUT / "networks.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")
    for path in sorted(OUT.iterdir()):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
