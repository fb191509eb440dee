"""The network that weights belong to, from their names and shapes alone.

Facts that names and shapes do not tell are decided by stated rules, each a sentence in `Checkpoint.rules`. No values
are read or allocated: expected shapes come from a network on the meta device.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any, get_origin

import torch
from torch import Tensor

from swinir.models.swinir import MAX_LAYERS, NetworkConfig, SwinIR
from swinir.weights.safe_load import DOWNLOAD_AGAIN, CheckpointError, reason, shown, some

MAX_UPSCALE = 1024
ANY_UPSCALE = 4  # largest scale of the training, of files that do not state it
MAX_DERIVED_BYTES = 2 * 2**30  # of buffers that follow from the window and the training size

MASK = ".attn_mask"
INDEX = ".attn.relative_position_index"
LAYER = re.compile(r"layers\.(\d{1,6})\.residual_group\.blocks\.(\d{1,6})\.")

# A part of a key, in lower case, that only another network has.
OTHER_NETWORKS = (
    ("attn.logit_scale", "Swin2SR or another Swin Transformer V2"),
    ("overlap_attn.", "HAT"),
    ("aligned_relative_position_index", "SRFormer"),
    ("rdb1.conv1", "RRDBNet (ESRGAN)"),
    ("layer1.0.conv1.", "a ResNet"),
)


def infer_network(state: Mapping[str, Tensor]) -> tuple[NetworkConfig, tuple[str, ...]]:
    """Infer the network of weights from names and shapes alone; return it with the rules that were applied.

    Derived buffers in `state` tell the training size. No values are read: tensors may be on the meta device.

    Raises:
        CheckpointError: when `state` is not exactly the weights of one SwinIR.
    """
    network, rules = infer(state)
    return network, tuple(rules.values())


def infer(state: Mapping[str, Tensor]) -> tuple[NetworkConfig, dict[str, str]]:
    """Infer the network, and the rules by the option that each decided."""
    _refuse_other_networks(state)
    depths = _depths(state)
    in_chans, dim = _shape(state, "conv_first.weight", rank=4)[1::-1]
    blocks = [[f"layers.{i}.residual_group.blocks.{j}" for j in range(depth)] for i, depth in enumerate(depths)]
    tables = [
        _shape(state, *(f"{block}.attn.relative_position_bias_table" for block in layer), rank=2) for layer in blocks
    ]
    side = math.isqrt(tables[0][0])
    if side * side != tables[0][0] or side % 2 == 0:
        raise CheckpointError(
            f"its relative_position_bias_table has {tables[0][0]} rows, which fits no window; a table has "
            "(2 * window - 1)**2 rows; name a SwinIR weights file"
        )
    window = (side + 1) // 2
    rules = {
        "img_range": "img_range is 255 as in the released networks with window 7; weights do not tell it"
        if window == 7
        else "img_range is 1 as in all released networks but those with window 7; weights do not tell it",
        "drop_path_rate": "drop_path_rate is 0; it acts only in training and leaves no trace in the weights",
    }
    hidden = _shape(state, *(f"{block}.mlp.fc1.weight" for block in blocks[0]), rank=2)[0]
    try:
        network = NetworkConfig(
            in_chans=in_chans,
            window_size=window,
            img_range=255.0 if window == 7 else 1.0,
            depths=tuple(depths),
            embed_dim=dim,
            num_heads=tuple(heads for _, heads in tables),
            mlp_ratio=_ratio(hidden, dim),
            resi_connection=_resi_connection(state),
            img_size=_training_size(state, window, depths, rules),
            qkv_bias=any(name.endswith(".attn.qkv.bias") for name in state),
            ape="absolute_pos_embed" in state,
            patch_norm="patch_embed.norm.weight" in state,
            **_reconstruction(state, in_chans, rules),
        )
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"its shapes describe no SwinIR: {error}; name a SwinIR weights file") from error
    check_size(network)
    check_fit(network, state)
    return network, rules


def _refuse_other_networks(state: Mapping[str, Tensor]) -> None:
    for part, network in OTHER_NETWORKS:
        for name in state:
            if part in name.lower():
                raise CheckpointError(
                    f"does not look like SwinIR but like {network}: it has {shown(name)}; name a SwinIR weights file"
                )
    if not any(LAYER.match(name) for name in state):
        raise CheckpointError(
            f"does not look like SwinIR: no layers.0.residual_group.blocks.0 but {some(state)}; "
            "name a SwinIR weights file"
        )


def _depths(state: Mapping[str, Tensor]) -> list[int]:
    """Number of Swin Transformer layers in each RSTB, which must be numbered without gaps."""
    layers: dict[int, set[int]] = {}
    for name in state:
        match = LAYER.match(name)
        if match:
            layers.setdefault(int(match[1]), set()).add(int(match[2]))
    for i in range(len(layers)):
        blocks = layers.get(i, set())
        gaps = [j for j in range(max(1, len(blocks))) if j not in blocks]
        if gaps:
            raise CheckpointError(
                f"has no layers.{i}.residual_group.blocks.{gaps[0]} but later layers; the file is incomplete, "
                f"{DOWNLOAD_AGAIN}"
            )
    depths = [len(layers[i]) for i in range(len(layers))]
    if sum(depths) > MAX_LAYERS:
        raise CheckpointError(f"has {sum(depths):,} layers, more than the limit of {MAX_LAYERS}; is it SwinIR?")
    return depths


def _shape(state: Mapping[str, Tensor], *names: str, rank: int) -> tuple[int, ...]:
    """Shape of the first tensor that is there among `names`."""
    name = next((name for name in names if name in state), None)
    if name is None:
        raise CheckpointError(f"has no {names[0]}; the file is incomplete or not SwinIR, {DOWNLOAD_AGAIN}")
    shape = tuple(state[name].shape)
    if len(shape) != rank or 0 in shape:
        raise CheckpointError(f"its {name} has shape {shape}, expected {rank} non-empty dimensions; is it SwinIR?")
    return shape


def _resi_connection(state: Mapping[str, Tensor]) -> str:
    """Infer `resi_connection` from the names of the closing convolutions and the kernel size of a single one."""
    if "conv_after_body.0.weight" in state:
        return "3conv"
    if "layers.0.conv.0.weight" in state:
        return "none"
    single = state.get("conv_after_body.weight")
    return "1x1" if single is not None and tuple(single.shape[2:]) == (1, 1) else "1conv"


def _ratio(hidden: int, dim: int) -> float:
    """Return a ratio that gives back exactly `hidden` when the network multiplies and truncates."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)


def _training_size(state: Mapping[str, Tensor], window: int, depths: list[int], rules: dict[str, str]) -> int:
    """Side of the training patch: from the position embedding, the mask, or a rule, which is added to `rules`."""
    if "absolute_pos_embed" in state:
        return _root(_shape(state, "absolute_pos_embed", rank=3)[1], "positions in its absolute_pos_embed")
    mask = next((name for name in state if name.endswith(MASK)), None)
    if mask is not None:
        return window * _root(_shape(state, mask, rank=3)[0], f"windows in its {shown(mask)}")
    if max(depths) >= 2 and any(name.endswith(INDEX) for name in state):
        rules["img_size"] = (
            f"img_size is {window}: a file with relative_position_index but no attn_mask was trained within one "
            "window, without shifts"
        )
        return window
    size = 126 if window == 7 else window * max(2, (64 + window // 2) // window)
    why = (
        "the derived buffers were stripped, so shifted windows and a usual training size are assumed"
        if max(depths) >= 2
        else "with one layer per block no window is shifted and nothing depends on the training size"
    )
    rules["img_size"] = f"img_size is {size}: {why}"
    return size


def _root(square: int, what: str) -> int:
    root = math.isqrt(square)
    if root * root != square:
        raise CheckpointError(f"the number of {what}, {square}, is no square; name a network of square patches")
    return root


def _reconstruction(state: Mapping[str, Tensor], in_chans: int, rules: dict[str, str]) -> dict[str, Any]:
    """Options of the part after the deep features: upsampler, upscale, and num_feat where it exists."""
    if "conv_coefficients.weight" in state:
        rules["upscale"] = f"upscale is {ANY_UPSCALE}, the usual limit of networks of any scale; weights do not tell it"
        return {"upsampler": "any", "upscale": ANY_UPSCALE}
    before = "conv_before_upsample.0.weight"
    if "conv_up1.weight" in state:
        upscale = 4 if "conv_up2.weight" in state else 2
        return {"upsampler": "nearest+conv", "upscale": upscale, "num_feat": _shape(state, before, rank=4)[0]}
    if "upsample.0.weight" not in state:
        if before in state:
            raise CheckpointError(f"has no upsample.0.weight or conv_up1.weight; it is incomplete, {DOWNLOAD_AGAIN}")
        return {"upsampler": "", "upscale": 1}
    out, feat = _shape(state, "upsample.0.weight", rank=4)[:2]
    if before in state or "conv_last.weight" in state:
        steps = sum(re.fullmatch(r"upsample\.\d+\.weight", name) is not None for name in state)
        upscale = 3 if steps == 1 and out == 9 * feat else 2**steps
        name = "pixelshuffle"
    else:
        upscale = math.isqrt(out // in_chans)
        name = "pixelshuffledirect"
        if upscale**2 * in_chans != out:
            raise CheckpointError(
                f"its upsample.0.weight gives {out} channels, which is no square number times the {in_chans} of the "
                "input; is it SwinIR?"
            )
    if upscale > MAX_UPSCALE:
        raise CheckpointError(f"enlarges more than {MAX_UPSCALE} times; is it SwinIR?")
    return {"upsampler": name, "upscale": upscale} | ({"num_feat": feat} if name == "pixelshuffle" else {})


# Comparison of weights and networks.


def is_derived(name: str) -> bool:
    return name.endswith((MASK, INDEX))


def check_size(network: NetworkConfig) -> None:
    """Refuse networks whose derived buffers are huge: a small file could ask for them."""
    layers, tokens = sum(network.depths), network.window**2
    in_memory = layers * tokens**2 * (8 + 16)  # index and, in shifted layers, four masks
    in_file = layers * tokens**2 * 8 + network.img_size**2 * tokens * 4
    if max(in_memory, in_file) > MAX_DERIVED_BYTES:
        raise CheckpointError(
            f"a window of {network.window} and an img_size of {network.img_size} in {layers} layers need "
            f"{max(in_memory, in_file):,} bytes of buffers, more than the limit of {MAX_DERIVED_BYTES:,}; is it SwinIR?"
        )


@lru_cache(maxsize=32)
def state_shapes(network: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the state dict, derived buffers included."""
    try:
        with torch.device("meta"):
            state = SwinIR(replace(network, drop_path_rate=0.0)).state_dict()
    except RuntimeError as error:  # sizes beyond 64 bits
        raise CheckpointError(f"describes an absurd network ({reason(error)}); is it SwinIR?") from error
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def check_fit(network: NetworkConfig, state: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not exactly those of `network`; derived buffers may be left out."""
    expected = state_shapes(network)
    masked = any(name.endswith(MASK) for name in state)
    optional = {name for name in expected if name.endswith(INDEX) or (name.endswith(MASK) and not masked)}
    misshapen = [
        f"{name} has shape {tuple(tensor.shape)}, expected {expected[name]}"
        for name, tensor in state.items()
        if name in expected and tuple(tensor.shape) != expected[name]
    ]
    problems = {
        "missing": [name for name in expected if name not in state and name not in optional],
        "surplus": [name for name in state if name not in expected],
        "misshapen": misshapen,
    }
    found = [f"{what}: {some(names)}" for what, names in problems.items() if names]
    if found:
        raise CheckpointError(
            f"its weights are not those of one SwinIR; {'; '.join(found)}; {DOWNLOAD_AGAIN}, or name one saved whole"
        )


def reconcile(
    described: dict[str, Any], inferred: NetworkConfig, rules: dict[str, str]
) -> tuple[NetworkConfig, dict[str, str]]:
    """Return the network that a file describes, checked against the inferred one, with the rules still needed."""
    network = stated_network(described, inferred)
    known = [field.name for field in fields(NetworkConfig)]
    unseen = {"use_checkpoint", "mlp_ratio", "window_size", *rules}
    if inferred.upsampler in ("", "pixelshuffledirect", "any"):
        unseen.add("num_feat")
    differing = {name for name in known if name not in unseen and getattr(network, name) != getattr(inferred, name)}
    if int(inferred.embed_dim * network.mlp_ratio) != int(inferred.embed_dim * inferred.mlp_ratio):
        differing.add("mlp_ratio")
    if network.window != inferred.window:
        differing.add("window_size")
    # Unless a rule assumed it, whether windows are shifted is known.
    if network.shifted != inferred.shifted and not ("img_size" in rules and inferred.shifted):
        differing.add("img_size")
    if differing:
        pairs = [f"{name} {getattr(network, name)!r} for {getattr(inferred, name)!r}" for name in sorted(differing)]
        raise CheckpointError(f"its network options disagree with its weights: {some(pairs)}; save it again")
    return network, {name: rule for name, rule in rules.items() if name not in described}


def stated_network(described: dict[str, Any], default: NetworkConfig) -> NetworkConfig:
    """Return the network that a file describes; `default` has the options that it leaves out."""
    known = {field.name: field.type for field in fields(NetworkConfig)}
    for name, value in dict.items(described):
        if name in known and not _has_type(value, known[name]):
            raise CheckpointError(f"its network option {name} has a value of the wrong type or size; save it again")
    try:
        network = NetworkConfig.from_dict(default.to_dict() | described)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"its network options are invalid: {reason(error)}; save it again") from error
    check_size(network)
    return network


def _has_type(value: Any, kind: Any) -> bool:
    """True when a value from a file has the type of an option: strictly (True is no int) and finite."""
    if get_origin(kind) is tuple:
        return isinstance(value, (list, tuple)) and all(is_int(item) for item in value)
    if kind is float:
        return is_int(value) or (type(value) is float and math.isfinite(value))
    return is_int(value) if kind is int else type(value) is kind


def is_int(value: Any) -> bool:
    """True when a value from a file is an integer of less than 64 bits."""
    return type(value) is int and abs(value) < 2**63
