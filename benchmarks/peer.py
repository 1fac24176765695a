"""PyTorch as a contender: eager or compiled, channels first or last, as `benchmarks.ours` is timed.

In bfloat16 the network runs under autocast, and the loss of its logits in float32, as ours with
config.model.dtype bfloat16.
"""

import os

import torch
from torch import nn

from benchmarks import cases, peer_torch, torch_memory
from benchmarks.protocol import Contender, serve

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FORMATS = {"first": torch.contiguous_format, "last": torch.channels_last_3d}


def make_model(config, landmarks: int, channels: str) -> nn.Module:
    torch.manual_seed(0)
    model = peer_torch.ResUNet3D(landmarks, config.model.widths)
    return model.to(DEVICE, memory_format=FORMATS[channels])


def autocast(dtype: str):
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=dtype == "bfloat16")


def count_convolutions(model: nn.Module, volumes: torch.Tensor, dtype: str) -> dict[str, int]:
    """How many 3D convolutions there are, and how many PyTorch runs without oneDNN (CPU only).

    At batch 1 PyTorch takes oneDNN only where B C D H of the input is above 20480, so small grids
    run partly on a slower form. Its users get that, so it is timed; but it is said in the table.
    """
    backends = []
    autocast_dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}

    def note(conv, inputs):
        cast = autocast_dtypes[dtype]  # autocast casts within the convolution, after this hook
        backends.append(
            torch._C._select_conv_backend(
                inputs[0].to(cast),
                conv.weight.to(cast),
                None if conv.bias is None else conv.bias.to(cast),
                conv.stride,
                conv.padding,
                conv.dilation,
                False,
                [0] * 3,
                conv.groups,
            ).name
        )

    if DEVICE.type != "cpu":
        return {}
    convs = [module for module in model.modules() if isinstance(module, nn.Conv3d)]
    hooks = [conv.register_forward_pre_hook(note) for conv in convs]
    with autocast(dtype):
        model(volumes)
    for hook in hooks:
        hook.remove()
    return {"convolutions": len(backends), "slow_convolutions": backends.count("Slow3d")}


def synchronise() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def measure_step(
    side: int, landmarks: int, compiled: bool, channels: str, dtype: str = "float32"
) -> Contender:
    """The whole step, from the batch to Adam."""
    config = cases.make_config(side)
    model = make_model(config, landmarks, channels)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.optim.lr, fused=True)
    volumes, points = (torch.from_numpy(array) for array in cases.make_arrays(side, landmarks))
    dataset = torch.utils.data.TensorDataset(volumes, points)
    loader = torch.utils.data.DataLoader(  # in memory: a worker would only cost
        dataset, batch_size=config.train.batch, shuffle=True, pin_memory=DEVICE.type == "cuda"
    )
    settings = cases.read_augmentation(config)
    settings["mirror"] = torch.from_numpy(cases.make_mirror(landmarks)).to(DEVICE)
    loss_settings = make_loss_settings(config)

    def sum_losses(volumes, points, counted):
        with autocast(dtype):
            logits = model(volumes)
        each = peer_torch.emd_separable(logits.float(), points, **loss_settings)
        return (each * counted).sum() / counted.sum().clamp(min=1)

    measure = torch.compile(sum_losses) if compiled else sum_losses

    def epochs():
        while True:
            yield from loader

    batches = epochs()

    def run(steps):
        for _ in range(steps):
            volumes, points = (a.to(DEVICE, non_blocking=True) for a in next(batches))
            counted = torch.ones(points.shape[:2], dtype=torch.bool, device=DEVICE)
            volumes, points, counted = peer_torch.augment(
                volumes[:, None].float(), points, counted, **settings
            )
            optimizer.zero_grad(set_to_none=True)
            loss = measure(volumes.to(memory_format=FORMATS[channels]), points, counted)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
            optimizer.step()
        synchronise()

    example = torch.rand(config.train.batch, 1, side, side, side, device=DEVICE)
    facts = count_convolutions(model, example.to(memory_format=FORMATS[channels]), dtype)

    def list_kept():
        return [*model.parameters(), *torch_memory.list_tensors(optimizer.state)]

    return _contender(run, list_kept, parameters=count_parameters(model), **facts)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def measure_network(
    side: int, landmarks: int, compiled: bool, channels: str, dtype: str = "float32"
) -> Contender:
    """The network alone, forward and backward to every parameter."""
    config = cases.make_config(side)
    model = make_model(config, landmarks, channels)
    shape = (config.train.batch, 1, side, side, side)
    volumes = torch.rand(shape, device=DEVICE).to(memory_format=FORMATS[channels])
    weights = torch.randn(shape[0], landmarks, *shape[2:], device=DEVICE)
    weights = weights.to(memory_format=FORMATS[channels])

    def weigh(volumes):
        with autocast(dtype):
            logits = model(volumes)
        return (logits.float() * weights).sum()

    measure = torch.compile(weigh) if compiled else weigh

    def run(steps):
        for _ in range(steps):
            model.zero_grad(set_to_none=True)
            measure(volumes).backward()
        synchronise()

    facts = count_convolutions(model, volumes, dtype)

    def list_kept():
        return [*model.parameters(), volumes, weights]

    return _contender(run, list_kept, parameters=count_parameters(model), **facts)


def make_decoder_settings(config) -> dict:
    """Of `heatmaps.decoder_settings`, for a gaussian of at most 1.5 voxels."""
    return {"sharpness": 1.0, "radius_vox": 4 * config.target.width_vox}


def make_loss_settings(config) -> dict:
    return {
        "sigma_vox": config.target.width_vox,
        "spacing_mm": config.grid.spacing_mm,
        "lambda2": config.loss.lambda2,
    }


def measure_loss(side: int, landmarks: int, form: str, compiled: bool) -> Contender:
    """A loss alone, forward and backward.

    form: "materialised" or "separable" of `peer_torch`; "nll" or "l2" of the package landmarker,
    with the heatmaps that its own generator makes of the points.
    """
    config = cases.make_config(side)
    shape = (1, landmarks, side, side, side)
    logits = torch.randn(shape, device=DEVICE).requires_grad_()
    points = torch.from_numpy(cases.make_arrays(side, landmarks)[1][:1]).to(DEVICE)
    if form in ("nll", "l2"):
        loss = _landmarker_loss(form, landmarks, side, config.target.width_vox)
    else:
        emd = {"materialised": peer_torch.emd_materialised, "separable": peer_torch.emd_separable}
        settings = make_loss_settings(config)

        def loss(logits, points):
            return emd[form](logits, points, **settings).mean()

    measure = torch.compile(loss) if compiled else loss

    def run(steps):
        for _ in range(steps):
            logits.grad = None
            measure(logits, points).backward()
        synchronise()

    return _contender(run)


def _landmarker_loss(form, landmarks, side, sigma_vox):
    from landmarker.heatmap import GaussianHeatmapGenerator
    from landmarker.losses import GaussianHeatmapL2Loss, NLLLoss

    render = GaussianHeatmapGenerator(landmarks, sigmas=sigma_vox, heatmap_size=(side,) * 3)
    render = render.to(DEVICE)
    if form == "nll":
        nll = NLLLoss(spatial_dims=3)
        return lambda logits, points: nll(logits, render(points))
    l2 = GaussianHeatmapL2Loss(spatial_dims=3)
    return lambda logits, points: l2(logits, render.sigmas, render(points))


def measure_inference(
    side: int,
    landmarks: int,
    volumes: int,
    compiled: bool,
    channels: str,
    dtype: str = "float32",
) -> Contender:
    """Forward and decoding of so many volumes a step, in batches of config.evaluation.batch."""
    config = cases.make_config(side)
    model = make_model(config, landmarks, channels).eval()
    forward = torch.compile(model) if compiled else model
    examples = cases.make_arrays(side, landmarks)[0][:volumes]
    decoder = make_decoder_settings(config)

    @torch.inference_mode()
    def find(volumes):
        x = torch.from_numpy(volumes).to(DEVICE).float()[:, None]
        with autocast(dtype):
            logits = forward(x.to(memory_format=FORMATS[channels]))
        return peer_torch.decode(logits, **decoder).cpu().numpy()

    def run(steps):
        for _ in range(steps):
            for start in range(0, volumes, config.evaluation.batch):
                find(examples[start : start + config.evaluation.batch])

    return _contender(run)


def _contender(run, list_kept=None, **facts):
    """list_kept: the tensors that are there before a step and after it."""
    on_gpu = DEVICE.type == "cuda"

    def device_peak_mib():
        return torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None

    def step_mib():
        if list_kept is None:
            return None
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
            run(1)
            return torch.cuda.max_memory_allocated() / 2**20
        peak = torch_memory.measure_peak_bytes(lambda: run(1))
        return (peak + torch_memory.count_bytes(list_kept())) / 2**20

    facts["device"] = DEVICE.type.replace("cuda", "gpu")
    return Contender(run, facts, device_peak_mib, step_mib)


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    serve(
        {
            "step": measure_step,
            "network": measure_network,
            "loss": measure_loss,
            "inference": measure_inference,
        }
    )
