"""The same network, loss, augmentation and decoder as a PyTorch user would write them.

Shapes are PyTorch's: volumes [B, 1, D, H, W], logits [B, L, D, H, W]; points [B, L, 3] are voxels
in the order d, h, w. `benchmarks.agreement` shows that all of it gives the numbers of fetal_jax.
"""

import itertools
import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.01  # of the leaky rectifier, as flax has it
SHALLOW = 0.05  # of `fetal_jax.heatmaps`: a dip between what is one peak


def make_norm(channels: int) -> nn.GroupNorm:
    """Instance norm as one group a channel: the same numbers, and faster than nn.InstanceNorm3d."""
    return nn.GroupNorm(channels, channels)


class ResidualBlock(nn.Module):
    """`fetal_jax.models.resunet3d.ResidualBlock` with a 1x1x1 shortcut."""

    def __init__(self, before: int, features: int, activate_first: bool = True):
        super().__init__()
        self.norm1 = make_norm(before) if activate_first else None
        self.conv1 = nn.Conv3d(before, features, 3, padding=1, bias=False)
        self.norm2 = make_norm(features)
        self.conv2 = nn.Conv3d(features, features, 3, padding=1)
        self.shortcut = nn.Conv3d(before, features, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.norm1 is None else F.leaky_relu(self.norm1(x), SLOPE, inplace=True)
        y = self.conv1(y)
        y = self.conv2(F.leaky_relu(self.norm2(y), SLOPE, inplace=True))
        return self.shortcut(x) + y


class ResUNet3D(nn.Module):
    """`fetal_jax.models.resunet3d.ResUNet3D` with groups 0 and shortcut_size 1."""

    def __init__(self, landmarks: int, widths: tuple[int, ...]):
        super().__init__()
        pairs = list(zip((1, *widths), widths, strict=False))
        self.down = nn.ModuleList(
            ResidualBlock(before, width, activate_first=level > 0)
            for level, (before, width) in enumerate(pairs)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(deeper, width, 2, stride=2, bias=False)
            for width, deeper in pairs[1:]
        )
        self.merge = nn.ModuleList(ResidualBlock(2 * width, width) for width in widths[:-1])
        self.norm_out = make_norm(widths[0])
        self.logits = nn.Conv3d(widths[0], landmarks, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, SLOPE)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool3d(x, 2) if level else x)
            skips.append(x)
        for level in reversed(range(len(self.merge))):
            x = self.merge[level](torch.cat([skips[level], self.up[level](x)], dim=1))
        return self.logits(F.leaky_relu(self.norm_out(x), SLOPE, inplace=True))


def copy_parameters(params: dict, model: ResUNet3D) -> None:
    """Give the model the parameters of ours, a tree of numpy arrays."""
    params = params["params"]

    def conv(module, ours):  # [K, K, K, C, F] to [F, C, K, K, K]
        module.weight.copy_(torch.from_numpy(np.transpose(ours["kernel"], (4, 3, 0, 1, 2)).copy()))
        if module.bias is not None:
            module.bias.copy_(torch.from_numpy(ours["bias"].copy()))

    def norm(module, ours):
        module.weight.copy_(torch.from_numpy(ours["scale"].copy()))
        module.bias.copy_(torch.from_numpy(ours["bias"].copy()))

    def block(module, ours):
        norms = [n for n in (module.norm1, module.norm2) if n is not None]
        for i, each in enumerate(norms):
            norm(each, ours[f"Norm_{i}"])
        for i, each in enumerate((module.conv1, module.conv2, module.shortcut)):
            conv(each, ours[f"Conv3D_{i}"])

    with torch.no_grad():
        for level, module in enumerate(model.down):
            block(module, params[f"down{level}"])
        for level, (up, merge) in enumerate(zip(model.up, model.merge, strict=True)):
            kernel = params[f"up{level}_kernel"]  # [C, 8, F]
            kernel = kernel.reshape(-1, 2, 2, 2, kernel.shape[-1]).transpose(0, 4, 1, 2, 3)
            up.weight.copy_(torch.from_numpy(kernel.copy()))
            block(merge, params[f"merge{level}"])
        norm(model.norm_out, params["norm_out"])
        kernel = params["logits_kernel"].T[:, :, None, None, None]
        model.logits.weight.copy_(torch.from_numpy(kernel.copy()))
        model.logits.bias.copy_(torch.from_numpy(params["logits_bias"].copy()))


def squared_offsets(shape, points: Tensor) -> list[Tensor]:
    """For each axis the squared offset of its voxels from the points: [B, L, N], vox²."""
    return [
        (torch.arange(n, device=points.device) - points[..., axis, None]).square()
        for axis, n in enumerate(shape)
    ]


def squared_distances(shape, points: Tensor) -> Tensor:
    """[B, L, D, H, W], vox²."""
    d, h, w = squared_offsets(shape, points)
    return d[..., :, None, None] + h[..., None, :, None] + w[..., None, None, :]


def emd_materialised(
    logits: Tensor, points: Tensor, *, sigma_vox: float, spacing_mm: float, lambda2: float
) -> Tensor:
    """Cross-entropy + λ2 Σ p r^½ of each landmark [B, L], with maps of target and distance."""
    squared = squared_distances(logits.shape[2:], points)
    q = torch.softmax((-squared / (2 * sigma_vox**2)).flatten(2), dim=-1)
    cost = (spacing_mm * squared.sqrt()).sqrt().flatten(2)
    log_p = torch.log_softmax(logits.flatten(2), dim=-1)
    return -(q * log_p).sum(-1) + lambda2 * (log_p.exp() * cost).sum(-1)


def emd_separable(
    logits: Tensor, points: Tensor, *, sigma_vox: float, spacing_mm: float, lambda2: float
) -> Tensor:
    """The same with no map of the target: a gaussian is a product of one profile for each axis."""
    offsets = squared_offsets(logits.shape[2:], points)
    q_d, q_h, q_w = (torch.softmax(-o / (2 * sigma_vox**2), dim=-1) for o in offsets)
    cost = (spacing_mm * squared_distances(logits.shape[2:], points).sqrt()).sqrt_().flatten(2)
    expected = torch.einsum("bldhw,bld,blh,blw->bl", logits, q_d, q_h, q_w)
    flat = logits.flatten(2)
    total = torch.logsumexp(flat, dim=-1)
    p = torch.exp(flat - total[..., None])
    return total - expected + lambda2 * (p * cost).sum(-1)


def sample_rotations(n: int, max_degrees: float, device) -> Tensor:
    """[N, 3, 3], uniform among the rotations of at most so many degrees."""
    angles = torch.linspace(0, math.radians(max_degrees), 513, device=device)
    share = angles - angles.sin()
    angle = angles[
        torch.searchsorted(share, torch.rand(n, device=device) * share[-1]).clamp(max=512)
    ]
    x, y, z = F.normalize(torch.randn(n, 3, device=device), dim=1).unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).reshape(n, 3, 3)
    sin, cos = angle.sin()[:, None, None], angle.cos()[:, None, None]
    return torch.eye(3, device=device) + sin * cross + (1 - cos) * (cross @ cross)


def move(volumes: Tensor, points: Tensor, matrix: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Volumes [B, 1, N, N, N] and points moved by x -> matrix (x - centre) + centre + shift."""
    half = (volumes.shape[-1] - 1) / 2
    inverse = torch.linalg.inv(matrix)
    offset = -(inverse @ shift[..., None]) / half  # in units where the volume runs from -1 to 1
    theta = torch.cat([inverse.flip(1, 2), offset.flip(1)], dim=2)  # grid_sample says w, h, d
    grid = F.affine_grid(theta, list(volumes.shape), align_corners=True)
    moved = F.grid_sample(volumes, grid, align_corners=True)  # trilinear, 0 outside
    return moved, (points - half) @ matrix.mT + half + shift[:, None]


def augment(
    volumes: Tensor,
    points: Tensor,
    counted: Tensor,
    *,
    max_degrees: float,
    max_scale: float,
    max_shift_vox: float,
    max_gamma: float,
    max_gain: float,
    max_noise: float,
    mirror: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Random versions of examples; the settings are those of config.augment."""
    n, device = len(volumes), volumes.device

    def uniform(*shape):  # in [-1, 1]
        return 2 * torch.rand(n, *shape, device=device) - 1

    matrix = (1 + max_scale * uniform(1, 1)) * sample_rotations(n, max_degrees, device)
    if mirror is not None:
        flip = torch.rand(n, device=device) < 0.5
        sign = torch.where(flip, -1.0, 1.0)
        matrix = matrix * torch.stack([sign, sign.abs(), sign.abs()], dim=1)[:, None]
        points = torch.where(flip[:, None, None], points[:, mirror], points)
        counted = torch.where(flip[:, None], counted[:, mirror], counted)
    volumes, points = move(volumes, points, matrix, max_shift_vox * uniform(3))
    side = volumes.shape[-1]
    counted = counted & ((points >= -0.5) & (points <= side - 0.5)).all(dim=-1)
    gamma, gain = ((1 + limit) ** uniform(1, 1, 1, 1) for limit in (max_gamma, max_gain))
    sd = max_noise * torch.rand(n, 1, 1, 1, 1, device=device)
    volumes = gain * volumes.clamp(min=0) ** gamma + sd * torch.randn_like(volumes)
    return volumes, points, counted


def decode(logits: Tensor, *, sharpness: float, radius_vox: float) -> Tensor:
    """Positions [B, L, 3]: the weighted mean in a ball round the argmax, read from a window of it.

    As in `heatmaps.decode_landmark`: near the border the ball is cut off alike on both sides, and
    other peaks in it are left out.
    """
    sizes = torch.tensor(logits.shape[2:], device=logits.device)
    flat = logits.flatten(2).float()
    peak = torch.stack(torch.unravel_index(flat.argmax(-1), logits.shape[2:]), dim=-1)  # [B, L, 3]
    reach = int(radius_vox)
    line = torch.arange(-reach, reach + 1, device=logits.device)
    offsets = torch.cartesian_prod(line, line, line)  # [K, 3]
    ball = offsets.square().sum(-1) <= radius_vox**2
    room = torch.minimum(peak, sizes - 1 - peak)[..., None, :]  # [B, L, 1, 3]
    inside = ball & (offsets.abs() <= room).all(-1)  # [B, L, K]
    d, h, w = torch.where(inside[..., None], peak[..., None, :] + offsets, 0).unbind(-1)
    values = sharpness * flat.gather(2, (d * sizes[1] + h) * sizes[2] + w)
    values = values.masked_fill(~inside, -torch.inf)
    weights = torch.softmax(values.masked_fill(~find_peak(values), -torch.inf), dim=-1)
    return peak + weights @ offsets.float()


def find_peak(values: Tensor) -> Tensor:
    """Which voxels of cubic windows [B, L, K] belong to the peak in their middle."""
    side = round(values.shape[-1] ** (1 / 3))
    maps = values.reshape(-1, 1, side, side, side)
    level = torch.full_like(maps, -torch.inf)
    middle = side // 2
    level[:, :, middle, middle, middle] = maps[:, :, middle, middle, middle]
    for _ in range(side):
        level = torch.minimum(F.max_pool3d(level, 3, stride=1, padding=1), maps)
    dip = torch.where(maps.isfinite(), maps - level, torch.inf).flatten(1)
    steps = sorted(itertools.product((-1, 0, 1), repeat=3), key=any)
    padded = F.pad(maps[:, 0], (1,) * 6, value=-torch.inf)
    around = torch.stack(
        [padded[(..., *(slice(1 + a, 1 + a + side) for a in step))] for step in steps]
    )
    moves = torch.tensor([(a * side + b) * side + c for a, b, c in steps], device=values.device)
    top = torch.arange(side**3, device=values.device) + moves[around.argmax(0).flatten(1)]
    for _ in range((side**3).bit_length()):
        top = top.gather(1, top)
    kept = dip.gather(1, top) <= SHALLOW
    kept[:, side**3 // 2] = True
    return kept.reshape(values.shape)
