"""Images for tests of the estimates."""

import io

import numpy as np
import skimage.data
from PIL import Image

from swinir.image_io.image import list_images, read

# Photographs in scikit-image's wheel whose pixels were never compressed with loss; one is a texture throughout.
PHOTOGRAPHS = ("astronaut", "camera", "coffee", "brick", "gravel")
SETS = ("Set12", "classic5", "McMaster", "LIVE1", "Set5/HR")


def photograph(name):
    image = getattr(skimage.data, name)()
    return image.reshape(*image.shape[:2], -1)


def add_noise(image, level, seed=1):
    noise = np.random.default_rng(seed).normal(0, level, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


def tables_of(data):
    return Image.open(io.BytesIO(data)).quantization


def pillows_file(image, **options):
    stream = io.BytesIO()
    Image.fromarray(image.squeeze()).save(stream, "JPEG", **options)
    return stream.getvalue()


def read_all(folder):
    return [read(path) for path in list_images(folder)]


def share(values):
    values = list(values)
    return sum(values) / len(values)
