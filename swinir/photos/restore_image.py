"""One image in one call, as `swinir restore` restores it."""

import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from PIL import Image

from swinir.image_io.canvas import Workspace
from swinir.image_io.in_memory import from_array, from_pil, to_array, to_pil
from swinir.image_io.picture import Picture
from swinir.image_io.reader import read_picture
from swinir.inference.device import choose_device
from swinir.inference.options import RunOptions
from swinir.photos.batch import write_output
from swinir.photos.jobs import Output
from swinir.photos.loaded_models import LoadedModels, load_by
from swinir.photos.manifest import state_of
from swinir.photos.options import RestoreOptions
from swinir.photos.restore_photo import Decision, decide, restore_photo

DEFAULTS = RestoreOptions()
PathLike = str | Path
Given = PathLike | Image.Image | np.ndarray
Kind = TypeVar("Kind", Image.Image, np.ndarray)


@overload
def restore_image(
    image: Given, options: RestoreOptions = ..., *, output: PathLike, device: str | None = ...,
    backend: str | None = ..., **changes: Any,
) -> Path: ...  # fmt: skip
@overload
def restore_image(
    image: PathLike, options: RestoreOptions = ..., *, output: None = ..., device: str | None = ...,
    backend: str | None = ..., **changes: Any,
) -> Image.Image: ...  # fmt: skip
@overload
def restore_image(
    image: Kind, options: RestoreOptions = ..., *, output: None = ..., device: str | None = ...,
    backend: str | None = ..., **changes: Any,
) -> Kind: ...  # fmt: skip
def restore_image(
    image: Given,
    options: RestoreOptions = DEFAULTS,
    *,
    output: PathLike | None = None,
    device: str | None = None,
    backend: str | None = None,
    **changes: Any,
) -> Given:
    """Restore one image exactly as `swinir restore` does, as in `restore_image("photo.jpg", scale=2)`.

    Args:
        image: a file; a Pillow image; or an array (H, W) or (H, W, C) of 1 to 4 channels (an even number has alpha),
            uint8, uint16, or floats in [0, 1].
        options: how to restore it.
        output: file to write, in the format of its name; an existing one is replaced.
        device: "cpu", "cuda" or "cuda:1"; a GPU if there is one.
        backend: "onnx" or "openvino" to run the networks by these, on the CPU.
        changes: fields of `RestoreOptions` that differ from `options`.

    Returns:
        The path of `output` if one is named. Otherwise the kind that was given: an array of the same dtype and number
        of axes, or a Pillow image; for a path a Pillow image.

    Raises:
        ValueError: for an image that cannot be read or held, and for options that are out of range.
        OSError: if the output cannot be written.
    """
    options = replace(options, **changes)
    picture, models = _picture(image), _models(options.treatment.run, device, backend, _stamp(options))
    decision = decide(picture, options.treatment, models)
    workspace = Workspace(tempfile.gettempdir())
    restored = restore_photo(picture, decision, options.treatment, models, workspace)
    if output is not None:
        target, source = Path(output), Path(image) if isinstance(image, PathLike) else None
        if source is not None and target.exists() and target.samefile(source):
            raise ValueError(f"output {target} is the input itself; name another file")
        write_output(source, target, picture, restored, Output(), workspace)
        return target
    return to_array(restored, image) if isinstance(image, np.ndarray) else to_pil(restored)


def plan_image(
    image: Given,
    options: RestoreOptions = DEFAULTS,
    *,
    device: str | None = None,
    backend: str | None = None,
    **changes: Any,
) -> Decision:
    """Return what `restore_image` would do with an image: the estimates, the models and the reasons for each.

    Args:
        image: the image, as `restore_image` takes it.
        options: the request, as for `restore_image`.
        device: place of the networks, as for `restore_image`.
        backend: library that runs the networks, as for `restore_image`.
        changes: fields of `RestoreOptions` that differ from `options`.

    Raises:
        ValueError: as `restore_image`.
    """
    options = replace(options, **changes)
    return decide(_picture(image), options.treatment, _models(options.treatment.run, device, backend, _stamp(options)))


def _picture(image: Given) -> Picture:
    if isinstance(image, np.ndarray):
        return from_array(image)
    if isinstance(image, Image.Image):
        return from_pil(image)
    if isinstance(image, PathLike):
        return read_picture(image)
    raise TypeError(
        f"image must be a path, a Pillow image or an array, got {type(image).__name__}; swinir.restore takes tensors"
    )


def _stamp(options: RestoreOptions) -> object:
    """State of the file that a model is read from, so that a changed one is read again."""
    return None if options.model is None else state_of(Path(options.model))


@lru_cache(maxsize=1)
def _models(run: RunOptions, device: str | None, backend: str | None, _stamp: object) -> LoadedModels:
    """Networks that stay loaded for the next call with the same options."""
    chosen = choose_device(device)
    return LoadedModels(chosen, load=load_by(backend, chosen, run.precision), options=run)
