"""Options of degradation chains from a table."""

import pytest

from swinir.degradations.chains import chain_options


def test_options_are_those_of_the_chain():
    assert chain_options("bsrgan", {"half_prob": 0.0}).half_prob == 0.0
    assert chain_options("bicubic", {}) is None


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("bsrgan", {"half_porb": 0.0}, r"unknown key degradation\.options\.half_porb; did you mean half_prob\?"),
        (
            "bicubic",
            {"half_prob": 0.0},
            "are for bsrgan, bsrgan_plus, realesrgan, photo, not for bicubic; leave them out",
        ),
    ],
)
def test_options_that_would_be_ignored_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        chain_options(kind, options)
