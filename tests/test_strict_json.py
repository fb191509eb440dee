"""JSON for any reader."""

import json
import math

import pytest

from swinir.strict_json import json_text


def test_json_has_no_numbers_that_json_lacks():
    text = json_text({"a": [math.inf, (1.5, math.nan)], "b": {"c": -math.inf}})
    assert json.loads(text, parse_constant=pytest.fail) == {"a": ["inf", [1.5, "nan"]], "b": {"c": "-inf"}}
