"""Exported files, run by onnxruntime or OpenVINO as networks that `swinir.restore` takes.

An exported file is an untrusted program. It can compute, but not read other files: ONNX's external data is refused, and
the two files of OpenVINO are tied together by a hash. The runtimes parse the files. Time and memory are not limited.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from swinir.models.swinir import NetworkConfig
from swinir.weights.infer_config import stated_network
from swinir.weights.safe_load import MAX_BYTES, reason

METADATA = "swinir"  # key of the facts about the network in a file
SUFFIXES = (".onnx", ".xml")
ADVICE = "write it with `swinir export`"

Run = Callable[[np.ndarray], np.ndarray]
OPENVINO_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


class ExportedNetwork:
    """(B, in_chans, H, W) in [0, 1] to (B, in_chans, H*upscale, W*upscale) for whole windows, as `SwinIR`; on the CPU.

    Attributes:
        path: the file.
        config: the network's configuration, as the file states it.
        facts: the statements of the file: network, task, checkpoint, checkpoint_sha256, version, input.
        engine: name and version of the library that runs it.
        precision: "fp32" or "bf16"; input and output are float32.

    Raises:
        ValueError: for sides that are no multiples of the window, and for output that the file does not state.
        MemoryError: if the engine runs out of memory.
    """

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(
        self, path: Path, facts: dict[str, Any], compile: Callable[[str], Run], engine: str, precision: str = "fp32"
    ) -> None:
        self.path, self.facts, self.engine, self.precision = path, facts, engine, precision
        self.config: NetworkConfig = facts["network"]
        self._compile, self._run = compile, compile(precision)

    @functools.cached_property
    def exact(self) -> "ExportedNetwork":
        """The same network in fp32, for images whose values bf16 cannot hold."""
        return ExportedNetwork(self.path, self.facts, self._compile, self.engine)

    def __call__(self, x: Tensor) -> Tensor:
        chans, window, scale = self.config.in_chans, self.config.window, self.config.upscale
        if x.ndim != 4 or x.shape[1] != chans or x.numel() == 0 or x.shape[2] % window or x.shape[3] % window:
            raise ValueError(
                f"input must be (B, {chans}, H, W), H and W multiples of {window}, got {tuple(x.shape)}; "
                "swinir.restore takes any size"
            )
        images = x.detach().to(self.device, self.dtype).contiguous().split(1)
        restored = torch.cat([torch.from_numpy(self._checked_run(image.numpy())) for image in images])
        wanted = (len(x), chans, x.shape[2] * scale, x.shape[3] * scale)
        if restored.shape != wanted or restored.dtype != self.dtype:
            raise ValueError(
                f"{self.path}: gives {restored.dtype} {tuple(restored.shape)} for an input of {tuple(x.shape)}, "
                f"expected {self.dtype} {wanted}; {ADVICE}"
            )
        return restored

    def _checked_run(self, image: np.ndarray) -> np.ndarray:
        try:
            return self._run(image)
        except Exception as error:  # the engines have types of their own
            if "alloc" in str(error).lower():
                raise MemoryError(f"{self.path}: {reason(error)}") from error
            raise ValueError(f"{self.path}: {self.engine} cannot run it: {reason(error)}; {ADVICE}") from error


def load_exported(path: str | Path, precision: str = "fp32") -> ExportedNetwork:
    """Load an exported file to run on the CPU, with as many threads as PyTorch has now.

    Args:
        path: .onnx, for onnxruntime, or .xml with its .bin beside it, for OpenVINO.
        precision: "fp32", or, for OpenVINO, "bf16".

    Raises:
        ImportError: without the packages that it needs, naming the extra.
        FileNotFoundError: if it, or its .bin file, is missing.
        ValueError: for a file that is damaged, refers to other files, or does not state its network, and for a
            precision that its library does not compute in.
    """
    path = Path(path)
    load = {".onnx": _load_onnx, ".xml": _load_openvino}.get(path.suffix)
    if load is None:
        raise ValueError(f"{path}: not an exported network that can be run; name a file in {' or '.join(SUFFIXES)}")
    if precision not in (OPENVINO_PRECISIONS if path.suffix == ".xml" else ("fp32",)):
        raise ValueError(f"{path}: {path.suffix} files run in fp32, .xml files in bf16, too; got {precision!r}")
    return load(path, precision)


def optional(module: str, extra: str) -> Any:
    """Import a module that an extra of this package installs.

    Raises:
        ImportError: without it, naming the extra.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{module} is not installed; install it with: pip install 'swinir-toolkit[{extra}]'"
        ) from error


def _load_onnx(path: Path, precision: str) -> ExportedNetwork:
    onnx, onnxruntime = optional("onnx", "onnx"), optional("onnxruntime", "onnx")
    content = _content(path)
    try:
        model = onnx.load_model_from_string(content)
        external = any(
            onnx.external_data_helper.uses_external_data(tensor) for tensor in _tensors(model, onnx.TensorProto)
        )
        if external:
            raise ValueError("keeps weights in other files, which are not read")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        # Spinning threads slow a busy machine more than they speed up a quiet one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        (lq,), (restored,) = session.get_inputs(), session.get_outputs()
        facts = _facts(session.get_modelmeta().custom_metadata_map.get(METADATA))
    except Exception as error:  # errors of the engine and protobuf have types of their own
        raise ValueError(f"{path}: cannot be run: {reason(error)}; {ADVICE}") from error

    def run(image: np.ndarray) -> np.ndarray:
        result: np.ndarray = session.run([restored.name], {lq.name: image})[0]
        return result

    return ExportedNetwork(path, facts, lambda _: run, f"onnxruntime {onnxruntime.__version__}", precision)


def _tensors(message: Any, kind: type) -> Iterator[Any]:
    """Yield all tensors of a protobuf message, at any depth."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                if isinstance(part, kind):
                    yield part
                yield from _tensors(part, kind)


def _load_openvino(path: Path, precision: str) -> ExportedNetwork:
    openvino = optional("openvino", "openvino")
    content, weights = _content(path), _content(path.with_suffix(".bin"))
    try:
        # OpenVINO detects formats by content, and would follow references in other formats.
        if not content.lstrip().startswith(b"<?xml"):
            raise ValueError("is not OpenVINO's XML")
        core = openvino.Core()
        network = core.read_model(content, weights)
        stated = network.get_rt_info([METADATA]).astype(str) if network.has_rt_info([METADATA]) else None
        facts = _facts(stated)
        if facts.pop("weights_sha256", None) != hashlib.sha256(weights).hexdigest():
            raise ValueError(f"does not belong to {path.with_suffix('.bin').name}, or one of the two is damaged")
        (_,), (_,) = network.inputs, network.outputs

        def compile(precision: str) -> Run:
            options = {
                "INFERENCE_PRECISION_HINT": OPENVINO_PRECISIONS[precision],
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "PERFORMANCE_HINT": "LATENCY",
            }
            compiled = core.compile_model(network, "CPU", options)
            return lambda image: compiled(image)[0]

        return ExportedNetwork(path, facts, compile, f"openvino {openvino.__version__}", precision)
    except Exception as error:  # mostly RuntimeError
        raise ValueError(f"{path}: cannot be run: {reason(error)}; {ADVICE}") from error


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"file not found: {path}; {ADVICE}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size:,} bytes, more than the limit of {MAX_BYTES:,}")
    return path.read_bytes()


def _facts(text: str | None) -> dict[str, Any]:
    """Read the statements of a file, with its network as a configuration."""
    if text is None:
        raise ValueError("it does not state its network")
    try:
        facts = json.loads(text)
        network = stated_network(facts["network"], NetworkConfig())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"its statement about the network cannot be used: {reason(error)}") from error
    return facts | {"network": network}
