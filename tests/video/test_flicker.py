"""Flicker on static pixels, and the blend that lowers it: on a photograph that stands still behind a moving one."""

import numpy as np
import pytest

pytest.importorskip("av")

from skimage import data

from swinir.video.flicker import Flicker, FrameSequence, luma, stillness

SIDE, NOISE = 96, 8.0


def scene(number):
    """A clean frame as (H, W, 3) floats in [0, 255], and where the moving photograph is in it."""
    image = data.astronaut()[:SIDE, 140 : 140 + SIDE].astype(float)
    moving = np.zeros((SIDE, SIDE), bool)
    moving[30:70, 5 + 3 * number : 45 + 3 * number] = True
    image[moving] = data.chelsea()[100:140, 120:160].reshape(-1, 3)
    return image, moving


def samples(image):
    return (image.clip(0, 255) * 257).round().astype(np.uint16)


def clips(count=8):
    """Noisy sources; restored frames with a quarter of the noise left; clean frames; and what moves."""
    rng = np.random.default_rng(5)
    clean, moving = zip(*map(scene, range(count)), strict=True)
    noise = [rng.normal(0, NOISE, image.shape) for image in clean]
    source = [samples(image + part) for image, part in zip(clean, noise, strict=True)]
    restored = [samples(image + part / 4) for image, part in zip(clean, noise, strict=True)]
    return source, restored, clean, moving


def run(*, steady, source, restored):
    sequence = FrameSequence(NOISE, steady=steady)
    return [sequence.add(*pair) for pair in zip(source, restored, strict=True)], sequence.flicker


def test_luma_of_white_is_255():
    assert luma(np.full((2, 3, 3), 65535, np.uint16)) == pytest.approx(255)


def test_noise_is_static_and_motion_is_not():
    source, _, _, moving = clips(2)
    static = stillness(luma(source[0]), luma(source[1]), NOISE) > 0
    still, moved = ~(moving[0] | moving[1]), moving[0] & moving[1]
    assert static[still].mean() > 0.9
    assert static[moved].mean() < 0.35


def test_flicker_is_the_mean_change_on_static_pixels_of_source_and_output():
    still = np.zeros((4, 4), np.float32)
    still[:2] = 0.5
    flicker = Flicker()
    flicker.add(still, np.where(still > 0, -3.0, 99.0), np.kron(np.where(still > 0, 1.0, 99.0), np.ones((2, 2))))
    assert (flicker.pixels, flicker.source, flicker.output) == (8, 24.0, 8.0)
    assert flicker.explain() == "Flicker on static pixels: 3.00 of 255 before, 1.00 after."


def test_a_clip_in_which_all_moves_has_no_flicker():
    assert Flicker().explain() == "Flicker: nothing stands still in this clip."


def test_without_the_blend_frames_stay_as_they_are():
    source, restored, _, _ = clips(3)
    frames, flicker = run(steady=False, source=source, restored=restored)
    assert all((a == b).all() for a, b in zip(frames, restored, strict=True))
    assert flicker.output == pytest.approx(flicker.source / 4, rel=0.05)


def test_the_blend_halves_flicker_and_leaves_no_ghosts():
    source, restored, clean, moving = clips()
    plain = run(steady=False, source=source, restored=restored)
    steady = run(steady=True, source=source, restored=restored)
    assert steady[1].output < 0.5 * plain[1].output
    errors = [
        [np.mean((a / 257 - b)[mask] ** 2) for a, b, mask in zip(frames[3:], clean[3:], regions, strict=True)]
        for regions in (moving[3:], [~mask for mask in moving[3:]])
        for frames, _ in (plain, steady)
    ]
    moving_plain, moving_steady, still_plain, still_steady = np.mean(errors, axis=1)
    assert 10 * np.log10(moving_steady / moving_plain) < 0.5  # dB lost where it moves
    assert 10 * np.log10(still_plain / still_steady) > 1.0  # dB gained where it stands


def test_a_saved_sequence_goes_on_with_the_same_frames(tmp_path):
    source, restored, _, _ = clips(4)
    whole, _ = run(steady=True, source=source, restored=restored)
    first, second = (FrameSequence(NOISE, steady=True) for _ in range(2))
    for pair in zip(source[:2], restored[:2], strict=True):
        first.add(*pair)
    first.save(tmp_path / "state")
    second.load(tmp_path / "state")
    rest = [second.add(*pair) for pair in zip(source[2:], restored[2:], strict=True)]
    assert all((a == b).all() for a, b in zip(rest, whole[2:], strict=True))
