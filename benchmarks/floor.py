"""What a step cannot go below on this machine, from its copy bandwidth and its matrix rate.

A floor is the larger of two times, for a device can compute while it loads:

- arithmetic: the multiply-adds of the convolutions, forward once and backward twice (towards the
  input and towards the kernel; the volume itself needs no gradient), at the matrix rate;
- traffic: the least that must pass through memory if everything between two convolutions is fused
  into them. A convolution reads its input and writes its output; backward it reads the gradient of
  its output and its input again, and writes the gradient of its input. The whole step adds three
  passes over the logits for the loss, and seven over the parameters for Adam (parameter and two
  moments read and written, gradient read), which are float32 whatever the network computes in.

In bfloat16 the matrix rate is that of bfloat16, and all that lies between convolutions has two
bytes a value, the logits too.

Nothing is counted for norms, activations, skips and augmentation, so no implementation reaches it.
A convolution by a fast algorithm (Winograd) does less arithmetic than is counted here.
"""

import json
import os
import sys
import time

from benchmarks import processor


def list_convolutions(widths, landmarks: int) -> list[tuple[float, float, int, int, int]]:
    """(input voxels, output voxels, C, F, taps) of each, voxels as a share of the grid's.

    taps: multiply-adds of one input channel for one output value.
    """
    layers = []

    def block(level, before, width):
        share = 1 / 8**level
        layers.append((share, share, before, width, 27))
        layers.append((share, share, width, width, 27))
        layers.append((share, share, before, width, 1))

    for level, (before, width) in enumerate(zip((1, *widths), widths, strict=False)):
        block(level, before, width)
    for level in reversed(range(len(widths) - 1)):
        width = widths[level]
        layers.append((1 / 8 ** (level + 1), 1 / 8**level, widths[level + 1], width, 1))  # up
        block(level, 2 * width, width)
    layers.append((1.0, 1.0, widths[0], landmarks, 1))
    return layers


def compute_work(
    side: int, landmarks: int, widths, *, batch: int, whole_step: bool, value_bytes: int = 4
) -> tuple[float, float]:
    """(floating-point operations, bytes) of one step, forward and backward; see above."""
    voxels = batch * side**3
    operations = values = parameters = 0.0
    for share_in, share_out, before, after, taps in list_convolutions(widths, landmarks):
        from_volume = before == 1
        passes = 2 if from_volume else 3
        operations += passes * 2 * taps * before * after * share_out * voxels
        inputs, outputs = before * share_in * voxels, after * share_out * voxels
        values += (2 if from_volume else 3) * inputs + 2 * outputs
        parameters += before * after * taps * (8 if share_in < share_out else 1)
    if not whole_step:
        return operations, values * value_bytes
    values += 3 * landmarks * voxels
    return operations, values * value_bytes + 7 * parameters * 4


def measure_machine() -> dict:
    """Best of several: bytes per second of a copy (read and written), operations per second.

    Returns:
      copy_bytes_s; matrix_ops_s, for each arithmetic that contenders are timed in here; gpu; flags
      of the processor.
    """
    import torch

    gpu = torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    flags = processor.read_flags()
    torch.set_num_threads(len(os.sched_getaffinity(0)))

    def best_seconds(work, rounds=7):
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            work()
            if gpu:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    source = torch.zeros(2**27, device=device)  # 512 MiB, far more than a cache holds
    target = torch.ones_like(source)
    copied = 2 * source.numel() * source.element_size()
    copy_rate = copied / best_seconds(lambda: target.copy_(source))
    n = 8192 if gpu else 2048
    rates = {}
    for dtype in ["float32", "bfloat16"] if gpu else processor.list_dtypes(flags):
        a, b = (torch.ones(n, n, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
        rates[dtype] = 2 * n**3 / best_seconds(lambda a=a, b=b: a @ b)
    return {
        "copy_bytes_s": copy_rate,
        "matrix_ops_s": rates,
        "gpu": gpu,
        "flags": sorted(flags),
    }


if __name__ == "__main__":
    json.dump(measure_machine(), sys.stdout)
