"""JSON for any reader: numbers that JSON lacks are written as strings."""

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(content: Any) -> str:
    """Indented JSON, which ends with a line feed; infinite and NaN numbers become the strings "inf", "-inf", "nan"."""
    return json.dumps(_strict(content), indent=2, allow_nan=False) + "\n"


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
