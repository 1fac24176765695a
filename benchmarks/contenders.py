"""Who is timed, in which arithmetic: names as they stand in the tables, and workers' settings."""

from collections.abc import Iterable, Mapping

OURS = "fetal_jax"
LANDMARKS = 19
PEERS = {  # name: settings of benchmarks.peer
    "PyTorch eager, channels first": {"compiled": False, "channels": "first"},
    "PyTorch eager, channels last": {"compiled": False, "channels": "last"},
    "PyTorch compiled, channels first": {"compiled": True, "channels": "first"},
    "PyTorch compiled, channels last": {"compiled": True, "channels": "last"},
}
RUNTIMES = {  # name: settings of benchmarks.onnx_runtimes, and in which arithmetic it runs
    "onnxruntime": ({"runtime": "onnxruntime"}, ("float32",)),
    "OpenVINO": ({"runtime": "openvino"}, ("float32", "bfloat16")),
}
_PEER = "benchmarks.peer"
LOSSES = {  # kind: name: (module, settings); a ratio is to the fastest peer of its kind
    "EMD-regularised cross-entropy": {
        OURS: ("benchmarks.ours", {"name": "emd"}),
        "PyTorch eager, maps of target and distance": (
            _PEER,
            {"form": "materialised", "compiled": False},
        ),
        "PyTorch eager, separable target": (_PEER, {"form": "separable", "compiled": False}),
        "PyTorch compiled, maps of target and distance": (
            _PEER,
            {"form": "materialised", "compiled": True},
        ),
        "PyTorch compiled, separable target": (_PEER, {"form": "separable", "compiled": True}),
    },
    "cross-entropy": {
        OURS: ("benchmarks.ours", {"name": "ce"}),
        "landmarker, NLLLoss": (_PEER, {"form": "nll", "compiled": False}),
    },
    "squared error": {
        OURS: ("benchmarks.ours", {"name": "sse"}),
        "landmarker, GaussianHeatmapL2Loss": (_PEER, {"form": "l2", "compiled": False}),
    },
}

Contenders = dict[str, tuple[str, dict]]  # name: (module, settings of its worker)


def name_in(name: str, dtype: str) -> str:
    """A contender's name in an arithmetic; float32 is not said."""
    return name if dtype == "float32" else f"{name}, {dtype}"


def is_ours(name: str) -> bool:
    return name.split(",")[0] == OURS


def list_networks(shared: Mapping, dtypes: Iterable[str]) -> Contenders:
    """Ours and every form of PyTorch, each in each arithmetic."""
    found: Contenders = {}
    for dtype in dtypes:
        settings = {**shared, "dtype": dtype}
        found[name_in(OURS, dtype)] = ("benchmarks.ours", settings)
        for name, form in PEERS.items():
            found[name_in(name, dtype)] = ("benchmarks.peer", settings | form)
    return found


def list_runtimes(shared: Mapping, dtypes: Iterable[str]) -> Contenders:
    """The runtimes that PyTorch's own network is exported to."""
    return {
        name_in(name, dtype): ("benchmarks.onnx_runtimes", {**shared, "dtype": dtype} | form)
        for name, (form, able) in RUNTIMES.items()
        for dtype in dtypes
        if dtype in able
    }


def choose(contenders: Contenders, only: Iterable[str] | None) -> Contenders:
    """Those of `only`; joined by a hyphen, all words are to hold.

    Words: ours, eager, compiled, first, last, onnxruntime, openvino, float32, bfloat16.
    """
    if only is None:
        return contenders

    def wanted(name):
        words = set(name.lower().replace(",", "").split())
        words |= {"ours"} if is_ours(name) else set()
        words |= set() if "bfloat16" in words else {"float32"}
        return any(set(choice.split("-")) <= words for choice in only)

    return {name: contender for name, contender in contenders.items() if wanted(name)}
