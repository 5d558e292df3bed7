"""NCSN++, the score network of the published phase-space models, with the published names for its parameters.

The network reads a state u = (x, m) as an image of 2 x 3 channels and the diffusion time t, and predicts the noise
eps of the perturbation kernel (cifar10.model.checkpoint makes the score of it). It is a U-Net: residual blocks
go down a few levels, each half the side of the one before, and come back up, one block more per level, reading beside
the current tensor h what was pushed on a stack of skips on the way down.

Like a scheme, it is a word. `steps` writes the word down, from a `Config`; each letter is a module and says what
becomes of h:

    block       h <- R(h, e)             R(h, e) = (W h + C_1 f(C_0 f(h) + D e)) / sqrt 2,   f = SiLU o group norm
    down, up    h <- R(h, e), half or twice the side: h is resampled on both ways, after f on the long one
    attention   h <- (h + N_3 y) / sqrt 2,  y_n = sum_j softmax_j(q_n . k_j / sqrt c) v_j,  (q, k, v) = N_0, N_1, N_2 h
    pyramid     h, p <- (P p + h) / sqrt 2      p: the network's raw input on its own way down
    norm, conv  h <- f(h),  h <- C h

C are 3 x 3 convolutions, D and N affine maps of channels, W the identity where shapes allow and 1 x 1 otherwise, P a
blur with a 3 x 3 convolution of stride 2. A step may first append the top of the stack to h (`pop`), and may leave h
there (`push`). The time enters every block through the embedding e = Lin SiLU Lin features(t).

The modules stand in one flat list, `all_modules`, in the word's order, so a parameter is called all_modules.12.Conv_0.
weight as in the published checkpoints; `Conv_0`, `NIN_3` and so on are their names, not ours.
Source: Song et al., arXiv 2011.13456, appendix H (NCSN++); Pandey and Mandt, arXiv 2303.01748 (its use for PSLD).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

HALF = 1 / math.sqrt(2)  # what a sum of two terms is multiplied by, so that its variance stays


def groups(channels: int) -> int:
    """The number of groups of a norm: of 4 channels each, at most 32."""
    return min(channels // 4, 32)


@dataclass(frozen=True)
class Config:
    """The network's shape; fields are called as in the published configuration files.

    nf: base width, a multiple of 4. ch_mult: the width of level i is nf ch_mult[i], its side image_size / 2^i.
    num_res_blocks: blocks per level on the way down; one more on the way up. attn_resolutions: sides with attention.
    dropout: in [0, 1), while training. embedding_type: "fourier" (features of log t, random frequencies of standard
    deviation fourier_scale) or "positional" (of t). fir: resample with the filter [1, 3, 3, 1] instead of a box.
    progressive_input: "residual" (the pyramid; it needs fir) or "none". out_ch: in_ch, or half of it where gamma = 0.
    Raises ValueError naming the field and its rule.
    """

    nf: int = 128
    ch_mult: tuple[int, ...] = (2, 2, 2)
    num_res_blocks: int = 8
    attn_resolutions: tuple[int, ...] = (16,)
    dropout: float = 0.15
    embedding_type: str = "fourier"
    fir: bool = True
    progressive_input: str = "residual"
    in_ch: int = 6
    out_ch: int = 6
    image_size: int = 32
    fourier_scale: float = 16.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "ch_mult", tuple(self.ch_mult))
        object.__setattr__(self, "attn_resolutions", tuple(self.attn_resolutions))
        rules = {
            "nf": (self.nf > 0 and self.nf % 4 == 0, "a positive multiple of 4"),
            "ch_mult": (len(self.ch_mult) > 0 and min(self.ch_mult) > 0, "one positive integer per level"),
            "num_res_blocks": (self.num_res_blocks > 0, "at least 1"),
            "dropout": (0 <= self.dropout < 1, "in [0, 1)"),
            "embedding_type": (self.embedding_type in ("fourier", "positional"), "'fourier' or 'positional'"),
            "progressive_input": (
                self.progressive_input == "none" or (self.progressive_input == "residual" and self.fir),
                "'none', or 'residual' with fir",
            ),
            "in_ch": (self.in_ch > 0 and self.in_ch % 2 == 0, "even: position, then momentum"),
            "out_ch": (self.out_ch in (self.in_ch, self.in_ch // 2), f"{self.in_ch} or {self.in_ch // 2}"),
            "image_size": (
                self.image_size > 0 and self.image_size % 2 ** (len(self.ch_mult) - 1) == 0,
                f"a positive multiple of {2 ** (len(self.ch_mult) - 1)}, to be halved between levels",
            ),
        }
        for name, (holds, rule) in rules.items():
            if not holds:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not a network's; it is {rule}")
        for width in {self.nf, *self.widths} | {a + b for a in self.widths for b in (self.nf, *self.widths)}:
            if width % groups(width):
                raise ValueError(
                    f"{width} channels do not fall into {groups(width)} groups; choose other nf and ch_mult"
                )

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels of each level."""
        return tuple(self.nf * factor for factor in self.ch_mult)

    @property
    def sides(self) -> tuple[int, ...]:
        """The height and width of each level."""
        return tuple(self.image_size // 2**level for level in range(len(self.ch_mult)))


# The large model of the papers, and that of its ablations (out_ch = 3 where gamma = 0).
PUBLISHED = Config()
ABLATION = Config(
    ch_mult=(1, 2, 2, 2),
    num_res_blocks=2,
    dropout=0.1,
    embedding_type="positional",
    fir=False,
    progressive_input="none",
)
ABLATION_MOMENTUM = replace(ABLATION, out_ch=3)


class Step(NamedTuple):
    """A letter of the word: what kind of module, its channels, and whether it pops a skip first and pushes h after."""

    kind: str
    inputs: int
    outputs: int
    pop: bool = False
    push: bool = False


def steps(config: Config) -> Iterator[Step]:
    """The network's word, in order; the stack that `push` and `pop` act on ends empty."""
    channels, pyramid, skips = config.nf, config.in_ch, [config.nf]
    levels = list(zip(config.widths, config.sides, strict=True))
    last, residual = config.image_size >> (len(levels) - 1), config.progressive_input == "residual"
    yield Step("conv", config.in_ch, config.nf, push=True)
    for width, side in levels:
        attends = side in config.attn_resolutions
        for _ in range(config.num_res_blocks):
            yield Step("block", channels, width, push=not attends)
            if attends:
                yield Step("attention", width, width, push=True)
            channels = width
            skips.append(width)
        if side != last:
            yield Step("down", width, width, push=not residual)
            if residual:
                yield Step("pyramid", pyramid, width, push=True)
                pyramid = width
            skips.append(width)
    yield Step("block", channels, channels)
    yield Step("attention", channels, channels)
    yield Step("block", channels, channels)
    for width, side in reversed(levels):
        for _ in range(config.num_res_blocks + 1):
            yield Step("block", channels + skips.pop(), width, pop=True)
            channels = width
        if side in config.attn_resolutions:
            yield Step("attention", width, width)
        if side != config.image_size:
            yield Step("up", width, width)
    yield Step("norm", channels, channels)
    yield Step("conv", channels, config.out_ch)


class NCSNpp(nn.Module):
    """The network of a configuration, initialised as published: at first its output is about 1e-5.

    Called as network(x, t): x (batch, in_ch, side, side), position before momentum, t (batch,) with 0 < t <= 1; both
    are of the parameters' dtype and device, under autocast too. Returns eps (batch, out_ch, side, side). Raises
    ValueError on a state of another shape.
    """

    def __init__(self, config: Config = PUBLISHED) -> None:
        super().__init__()
        self.config = config
        width = 4 * config.nf
        fourier = config.embedding_type == "fourier"
        embedding = [Fourier(config.nf, config.fourier_scale)] if fourier else []
        embedding += [Linear(config.nf * (2 if fourier else 1), width), Linear(width, width)]
        self._word = tuple(steps(config))
        resample = {"down": (box_down, fir_down), "up": (box_up, fir_up)}

        def module(place: int, step: Step) -> nn.Module:
            match step.kind:
                case "conv":
                    return Conv(step.inputs, step.outputs, scale=1.0 if place == 0 else VANISHING)
                case "norm":
                    return group_norm(step.inputs)
                case "attention":
                    return Attention(step.inputs)
                case "pyramid":
                    return Pyramid(step.inputs, step.outputs)
            way = resample[step.kind][config.fir] if step.kind in resample else None
            return Residual(step.inputs, step.outputs, width, config.dropout, way)

        self.all_modules = nn.ModuleList([*embedding, *(module(place, step) for place, step in enumerate(self._word))])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        shape = (self.config.in_ch, self.config.image_size, self.config.image_size)
        if tuple(x.shape[1:]) != shape or t.shape != x.shape[:1]:
            raise ValueError(
                f"a state {tuple(x.shape)} at times {tuple(t.shape)}: this network reads "
                f"(batch, {', '.join(map(str, shape))}) at (batch,)"
            )
        *embedding, first, second = self.all_modules[: -len(self._word)]
        features = embedding[0](t) if embedding else positional(t, self.config.nf)
        e = second(functional.silu(first(features)))
        h = p = x
        skips: list[Tensor] = []
        for step, module in zip(self._word, self.all_modules[-len(self._word) :], strict=True):
            if step.pop:
                h = torch.cat((h, skips.pop()), dim=1)
            match step.kind:
                case "block" | "down" | "up":
                    h = module(h, e)
                case "pyramid":
                    h = p = (module(p) + h) * HALF
                case "norm":
                    h = functional.silu(module(h))
                case _:
                    h = module(h)
            if step.push:
                skips.append(h)
        return h


# --- Time ---


class Fourier(nn.Module):
    """(sin a, cos a) with phases a = 2 pi W log t: (batch,) to (batch, 2 nf). W is drawn once and never trained."""

    def __init__(self, nf: int, scale: float) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(nf) * scale, requires_grad=False)

    def forward(self, t: Tensor) -> Tensor:
        phases = t.log()[:, None] * self.W * 2 * math.pi  # from left to right: in float32 a phase has four digits
        return torch.cat((phases.sin(), phases.cos()), dim=1)


def positional(t: Tensor, nf: int) -> Tensor:
    """(sin t f, cos t f), f_i = 10000^(-i / (nf/2 - 1)): (batch,) to (batch, nf), in t's dtype."""
    half = nf // 2
    places = torch.arange(half, dtype=t.dtype, device=t.device)
    phases = t[:, None] * torch.exp(places * -(math.log(10000) / (half - 1)))
    return torch.cat((phases.sin(), phases.cos()), dim=1)


# --- Resampling. The filter [1, 3, 3, 1] / 8 is the box [1, 1] / 2 three times; outside the image is zero. ---


def box_up(h: Tensor) -> Tensor:
    """Every pixel 2 x 2 times."""
    return functional.interpolate(h, scale_factor=2.0, mode="nearest")


def box_down(h: Tensor) -> Tensor:
    """The mean of every 2 x 2 pixels."""
    return functional.avg_pool2d(h, 2)


def smooth(h: Tensor) -> Tensor:
    """[1, 2, 1] / 4 along both axes: the box twice."""
    return functional.avg_pool2d(functional.avg_pool2d(h, 2, stride=1, padding=1), 2, stride=1)


def fir_up(h: Tensor) -> Tensor:
    """y[2i] = (h[i-1] + 3 h[i]) / 4 and y[2i+1] = (3 h[i] + h[i+1]) / 4, along both axes."""
    return smooth(box_up(h))


def fir_down(h: Tensor) -> Tensor:
    """y[i] = (h[2i-1] + 3 h[2i] + 3 h[2i+1] + h[2i+2]) / 8, along both axes."""
    return box_down(smooth(h))


def fir_blur(h: Tensor) -> Tensor:
    """y[j] = (h[j-2] + 3 h[j-1] + 3 h[j] + h[j+1]) / 8 for j = 0..n, along both axes: one pixel more than h."""
    for padding in (1, 1, 0):
        h = functional.avg_pool2d(h, 2, stride=1, padding=padding)
    return h


# --- Modules. Weights start uniform with variance scale / fan, fan the mean of a map's inputs and outputs. ---

VANISHING = 1e-10  # the scale of what ends a residual branch: the network starts as almost nothing


def fan_uniform_(weight: Tensor, scale: float, inputs: int, outputs: int) -> None:
    """Fill with the uniform law of variance scale / ((inputs + outputs) / 2)."""
    bound = math.sqrt(3 * scale * 2 / (inputs + outputs))
    nn.init.uniform_(weight, -bound, bound)


class Conv(nn.Conv2d):
    """A convolution that keeps the side, or halves it without padding (stride 2); its bias starts at 0."""

    def __init__(self, inputs: int, outputs: int, size: int = 3, stride: int = 1, scale: float = 1.0) -> None:
        self.scale = scale
        super().__init__(inputs, outputs, size, stride, padding=(size // 2 if stride == 1 else 0))

    def reset_parameters(self) -> None:
        area = math.prod(self.kernel_size)
        fan_uniform_(self.weight, self.scale, self.in_channels * area, self.out_channels * area)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Linear(nn.Linear):
    """An affine map; its bias starts at 0."""

    def reset_parameters(self) -> None:
        fan_uniform_(self.weight, 1.0, self.in_features, self.out_features)
        nn.init.zeros_(self.bias)


class NIN(nn.Module):
    """An affine map of the last axis, y_o = sum_i z_i W_io + b_o; W is stored (in, out)."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(channels, channels))
        self.b = nn.Parameter(torch.zeros(channels))
        fan_uniform_(self.W, scale, channels, channels)

    def forward(self, z: Tensor) -> Tensor:
        return functional.linear(z, self.W.mT, self.b)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with the published eps, 1e-6."""
    return nn.GroupNorm(groups(channels), channels, eps=1e-6)


class Residual(nn.Module):
    """(W h + C_1 f(C_0 f(h) + D SiLU e)) / sqrt 2, dropout before C_1; `way` resamples f(h) and h beside it."""

    def __init__(
        self, inputs: int, outputs: int, embedding: int, dropout: float, way: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__()
        self.GroupNorm_0 = group_norm(inputs)
        self.Conv_0 = Conv(inputs, outputs)
        self.Dense_0 = Linear(embedding, outputs)
        self.GroupNorm_1 = group_norm(outputs)
        self.Conv_1 = Conv(outputs, outputs, scale=VANISHING)
        if inputs != outputs or way is not None:
            self.Conv_2 = Conv(inputs, outputs, size=1)
        self.dropout, self._way = dropout, way

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        h = functional.silu(self.GroupNorm_0(x))
        if self._way is not None:
            h, x = self._way(h), self._way(x)
        h = self.Conv_0(h) + self.Dense_0(functional.silu(e))[:, :, None, None]
        h = functional.dropout(functional.silu(self.GroupNorm_1(h)), self.dropout, self.training)
        h = self.Conv_1(h)
        if hasattr(self, "Conv_2"):
            x = self.Conv_2(x)
        return (x + h) * HALF


class Attention(nn.Module):
    """Single-head attention over all pixels, and what it is added to."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.GroupNorm_0 = group_norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2 = (NIN(channels, 0.1) for _ in range(3))
        self.NIN_3 = NIN(channels, VANISHING)

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.GroupNorm_0(x).flatten(2).mT[:, None]  # (batch, one head, pixel, channel)
        q, k, v = self.NIN_0(pixels), self.NIN_1(pixels), self.NIN_2(pixels)
        y = self.NIN_3(functional.scaled_dot_product_attention(q, k, v))
        return (x + y[:, 0].mT.reshape(x.shape)) * HALF


class Pyramid(nn.Module):
    """Half the side: the filter, then a 3 x 3 convolution of stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.Conv2d_0 = Conv(inputs, outputs, stride=2)

    def forward(self, p: Tensor) -> Tensor:
        return self.Conv2d_0(fir_blur(p))
