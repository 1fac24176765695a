"""The machine: its devices in words, an accelerator that lies idle, and its memory."""

import ctypes
import glob
import os
import shutil

import jax

# Numbers and values of glibc's mallopt: one arena for all threads, never trimmed, nothing mapped.
MALLOC = {"arena_max": (-8, 1), "trim_threshold": (-1, -1), "mmap_max": (-4, 0)}


def reuse_memory() -> None:
    """Keep freed memory for the next step; call it before JAX starts a device. Does glibc's only.

    A step's buffers are large, and glibc returns each to the system, which clears its pages anew at
    the next step. Kept, they cost a fraction more memory.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if set_option:
        for option, value in MALLOC.values():
            set_option(option, value)


def describe_devices() -> str:
    """For instance '1 cpu device' or '16 TPU v4 devices in 4 processes'."""
    devices, processes = jax.devices(), jax.process_count()
    plural = "s" if len(devices) > 1 else ""
    together = f" in {processes} processes" if processes > 1 else ""
    return f"{len(devices)} {devices[0].device_kind} device{plural}{together}"


def print_devices() -> None:
    """Print what a run computes on, and warn of an accelerator that lies idle."""
    print(f"running on {describe_devices()}")
    if warning := find_idle_accelerator():
        print(f"warning: {warning}")


def find_idle_accelerator() -> str:
    """A warning if this machine seems to have a GPU or TPU that this JAX does not use, else ''."""
    if jax.default_backend() != "cpu":
        return ""
    if glob.glob("/dev/nvidia[0-9]*") or shutil.which("nvidia-smi"):
        return 'this machine has an NVIDIA GPU that JAX cannot use: pip install "jax[cuda13]"'
    if glob.glob("/dev/accel[0-9]*"):
        return 'this machine has a TPU that JAX cannot use: pip install "jax[tpu]"'
    return ""
