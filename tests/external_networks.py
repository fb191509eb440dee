"""Small external networks with random weights, in files as their own programs save them."""

import warnings

import pytest
import torch

SMALL = {"embed_dim": 12, "depths": (1, 1), "num_heads": (2, 2), "upsampler": "pixelshuffle"}
# architecture: its module in spandrel, options at scale 2, and the entry of a file that its program saves weights in
KINDS = {
    "RCAN": ("RCAN", {"scale": 2, "n_resgroups": 1, "n_resblocks": 1, "n_feats": 8, "reduction": 2}, None),
    "HAT": (
        "HAT",
        SMALL
        | {"upscale": 2, "img_size": 32, "window_size": 8, "compress_ratio": 3, "squeeze_factor": 6, "depths": (2, 2)},
        "params_ema",
    ),
    "DAT": (
        "DAT",
        {"upscale": 2, "embed_dim": 24, "depth": (1, 1), "num_heads": (2, 2), "split_size": (4, 8), "img_size": 64},
        "params",
    ),
    "Swin2SR": ("Swin2SR", SMALL | {"upscale": 2, "img_size": 16, "window_size": 8}, "params"),
    "ESRGAN": ("ESRGAN", {"num_filters": 8, "num_blocks": 1, "scale": 2}, "params_ema"),
    "RealESRGAN x2": (
        "ESRGAN",
        {"in_nc": 12, "num_filters": 8, "num_blocks": 1, "scale": 4, "shuffle_factor": 2},
        "params_ema",
    ),
    "IPT": ("IPT", {"patch_size": 24, "n_feats": 4, "scale": [2], "num_layers": 1, "num_queries": 1}, None),
}


def build(kind, **options):
    """A network of spandrel's, in eval mode."""
    pytest.importorskip("spandrel", reason="networks of others need spandrel, the extra `baselines`")
    import importlib

    place, usual, _ = KINDS[kind]
    module = importlib.import_module(f"spandrel.architectures.{place}")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(7)
        return getattr(module, place)(**usual | options).eval()


def write_external(path, kind, **options):
    """Save its weights with the other entries that its program writes."""
    state, entry = build(kind, **options).state_dict(), KINDS[kind][2]
    torch.save({entry: state, "iter": 5} if entry else state, path)
    return path
