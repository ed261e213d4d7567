"""The fusion network in plain PyTorch, to be compared with: no code of the package, its weights only.

As a script it fuses two folders, one pair after the other, as a user of PyTorch would write it:
`python benchmarks/torch_fusion.py --visible VIS --infrared IR --out OUT --weights fusion.safetensors`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional


def reflected(c, d, size):
    return nn.Conv2d(c, d, size, padding=size // 2, padding_mode="reflect")


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv_0, self.conv_1 = reflected(channels, channels, 3), reflected(channels, channels, 3)

    def forward(self, x, modulation=None):
        norms = [(None, None)] * 2 if modulation is None else modulation
        y = functional.relu(adaptive_norm(self.conv_0(x), *norms[0]))
        return x + adaptive_norm(self.conv_1(y), *norms[1])


def adaptive_norm(x, shift, scale):
    x = functional.instance_norm(x)
    return x if shift is None else x * scale[:, :, None, None] + shift[:, :, None, None]


class Content(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = reflected(1, 16, 7)
        self.down = nn.ModuleList(nn.Conv2d(c, 2 * c, 4, stride=2, padding=1) for c in (16, 32, 64))
        self.block = nn.ModuleList(Residual(128) for _ in range(2))

    def forward(self, x):
        x = functional.relu(functional.instance_norm(self.stem(x)))
        for conv in self.down:
            x = functional.relu(functional.instance_norm(conv(x)))
        for block in self.block:
            x = block(x)
        return x


class Style(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = reflected(1, 16, 7)
        self.down = nn.ModuleList(nn.Conv2d(c, d, 4, stride=2, padding=1) for c, d in ((16, 32), (32, 64), (64, 64)))
        self.head = nn.Conv2d(64, 8, 1)

    def forward(self, x):
        x = functional.relu(self.stem(x))
        for conv in self.down:
            x = functional.relu(conv(x))
        return self.head(x.mean((2, 3), keepdim=True))[:, :, 0, 0]


class MLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.ModuleList(nn.Linear(c, d) for c, d in ((16, 256), (256, 256), (256, 2048)))

    def forward(self, x):
        for i, dense in enumerate(self.dense):
            x = dense(functional.relu(x) if i else x)
        return x


class LayerNorm(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        std, mean = torch.std_mean(x, (1, 2, 3), keepdim=True)
        return (x - mean) / (std + 1e-5) * self.gamma[:, None, None] + self.beta[:, None, None]


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = MLP()
        self.block = nn.ModuleList(Residual(256) for _ in range(2))
        self.up = nn.ModuleList(nn.ConvTranspose2d(c, c // 2, 5, stride=2) for c in (256, 128, 64))
        self.up_norm = nn.ModuleList(LayerNorm(c) for c in (128, 64, 32))
        self.head = reflected(32, 1, 7)

    def forward(self, x, style):
        modulation = self.mlp(style).reshape(-1, 2, 2, 2, 256)
        for i, block in enumerate(self.block):
            x = block(x, [modulation[:, i, j].unbind(1) for j in range(2)])
        for up, norm in zip(self.up, self.up_norm, strict=True):
            x = functional.relu(norm(up(x)))
        return torch.tanh(self.head(x)).clamp(0, 1)


class TorchFusion(nn.Module):
    def __init__(self):
        super().__init__()
        self.content_visible, self.content_infrared = Content(), Content()
        self.style_visible, self.style_infrared = Style(), Style()
        self.decoder = Decoder()

    def forward(self, visible, infrared):
        h, w = visible.shape[2:]
        content = torch.cat([self.content_visible(visible), self.content_infrared(infrared)], 1)
        style = torch.cat([self.style_visible(visible), self.style_infrared(infrared)], 1)
        return self.decoder(content, style)[:, :, :h, :w]


def load(path):
    """The network in evaluation mode, channels last, with the tensors of a `fusion.safetensors`."""
    state = {}
    for name, value in load_file(path).items():
        *modules, kind = name.removeprefix("params/").split("/")
        # "block_0" of the file is "block.0" here, but "conv_0" is an attribute.
        modules = [
            m if m.startswith("conv_") else ".".join(m.rsplit("_", 1)) if m[-1].isdigit() else m for m in modules
        ]
        if kind == "kernel" and value.ndim == 4:
            value = value.permute((2, 3, 0, 1) if "/up_" in name else (3, 2, 0, 1))
        elif kind == "kernel":
            value = value.T
        state[".".join([*modules, "weight" if kind == "kernel" else kind])] = value.float()
    network = TorchFusion().eval()
    network.load_state_dict(state)
    return network.to(memory_format=torch.channels_last)


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser()
    for flag in ("--visible", "--infrared", "--out", "--weights"):
        parser.add_argument(flag, required=True)
    args = parser.parse_args()
    network = load(args.weights)
    Path(args.out).mkdir(parents=True, exist_ok=True)
    infrared = {path.stem: path for path in Path(args.infrared).iterdir()}
    for path in sorted(Path(args.visible).iterdir()):
        color = np.array(Image.open(path).convert("YCbCr"))
        thermal = np.array(Image.open(infrared[path.stem]).convert("L"))
        pair = (torch.from_numpy(image)[None, None].float() / 255 for image in (color[..., 0], thermal))
        color[..., 0] = (network(*pair)[0, 0] * 255).round().numpy()
        Image.fromarray(color, "YCbCr").convert("RGB").save(Path(args.out) / f"{path.stem}.png")


if __name__ == "__main__":
    main()
