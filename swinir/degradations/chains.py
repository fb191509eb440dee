"""The degradation chains of real images by name, with the class of their options."""

import difflib
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from swinir.degradations.bsrgan import BSRGANOptions, bsrgan
from swinir.degradations.bsrgan_plus import BSRGANPlusOptions, bsrgan_plus
from swinir.degradations.photo import PhotoOptions, photo
from swinir.degradations.realesrgan import RealESRGANOptions, realesrgan

CHAINS: dict[str, tuple[Callable[..., np.ndarray], Callable[..., Any]]] = {
    "bsrgan": (bsrgan, BSRGANOptions),
    "bsrgan_plus": (bsrgan_plus, BSRGANPlusOptions),
    "realesrgan": (realesrgan, RealESRGANOptions),
    "photo": (photo, PhotoOptions),
}


def chain_options(name: str, options: dict[str, Any]) -> Any:
    """Return the options of a chain, its class made of a table.

    Raises:
        ValueError: for a chain that has no options, an unknown option, and values out of range.
    """
    if name not in CHAINS:
        if options:
            raise ValueError(f"degradation.options are for {', '.join(CHAINS)}, not for {name}; leave them out")
        return None
    kind = CHAINS[name][1]
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise ValueError(f"unknown key degradation.options.{key}" + (f"; did you mean {near[0]}?" if near else ""))
    return kind(**options)
