"""ONNX files as another program runs them."""

import onnxruntime


def open_onnx(content):
    """A session on one thread of a CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_onnx(content, given):
    """{name: array} of what the file makes of {name: array}."""
    session = content if hasattr(content, "run") else open_onnx(content)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, given), strict=True))
