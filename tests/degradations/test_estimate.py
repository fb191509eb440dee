"""All estimates of an image together."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from estimates import add_noise, photograph, pillows_file, tables_of

from swinir.degradations.estimate import Findings, Noise, sense
from swinir.degradations.estimate_jpeg import pixel_jpeg_quality
from swinir.degradations.estimate_white_noise import white_noise_level
from swinir.degradations.jpeg import jpeg


def test_an_image_of_three_equal_channels_is_grey_and_measured_as_such():
    gray = add_noise(photograph("camera"), 25)
    assert sense(gray.repeat(3, axis=2)) == sense(gray)
    assert sense(gray).gray
    assert not sense(photograph("astronaut")).gray


def test_the_files_tables_decide():
    image = jpeg(photograph("camera"), 20)
    findings = sense(image, {0: tables_of(pillows_file(image, quality=90))[0]})
    assert (findings.jpeg_quality, findings.jpeg_source) == (90, "file")
    assert (sense(image).jpeg_quality, sense(image).jpeg_source) == (20, "pixels")
    assert sense(photograph("camera")).jpeg_source is None


@pytest.mark.parametrize(
    ("findings", "words"),
    [
        (Findings(Noise(24.96), None, None, False), ("25.0", "no sign", "Colour: yes")),
        (Findings(Noise(0.2), 40, "file", True), ("0.2", "the file says quality 40", "grey")),
        (
            Findings(Noise(0.2), 39.6, "pixels", True),
            ("0.2", "pixels show an earlier compression at quality 40", "grey"),
        ),
    ],
)
def test_findings_are_explained(findings, words):
    sentences = findings.explain()
    assert len(sentences) == len(words)
    for sentence, word in zip(sentences, words, strict=True):
        assert word in sentence
        assert sentence.endswith(".")


@pytest.mark.parametrize("image", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3)), np.zeros((0, 9, 3), np.uint8)])
@pytest.mark.parametrize("look", [sense, white_noise_level, pixel_jpeg_quality])
def test_what_is_no_image_is_refused(look, image):
    with pytest.raises(ValueError, match="image must be"):
        look(image)


def test_looking_leaves_the_image_and_the_global_generator_alone():
    image = photograph("camera")[:96, :96].copy()
    before, state = image.copy(), np.random.get_state()[1].copy()
    assert sense(image) == sense(image)
    assert np.array_equal(image, before)
    assert np.array_equal(np.random.get_state()[1], state)


def test_looking_needs_no_torch():
    code = "import sys, swinir.degradations.estimate, swinir.photos.select_models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
