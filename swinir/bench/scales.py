"""Networks of one scale and of any, at any scale, as `swinir restore` reaches it."""

from collections.abc import Sequence

from swinir.inference.external import Bicubic
from swinir.inference.forward import Runnable
from swinir.models.any_scale import at_scale
from swinir.models.swinir import SwinIR
from swinir.photos.select_models import fewest_factors, split_scale


def reaching(scale: float, networks: Sequence[SwinIR]) -> Runnable:
    """Return networks of one task as one that enlarges by a scale; bicubic interpolation if there are none.

    A network of any scale is run at the scale, or in passes beyond its largest. Of networks of one scale the fewest
    passes with the smallest output are run, small factors first, and their output is reduced by bicubic interpolation.
    """
    if not networks:
        return Bicubic(3, scale)
    first = networks[0]
    if first.config.any_scale:
        passes = [at_scale(first, factor) for factor in split_scale(scale, first.config.upscale)]
    else:
        by_scale = {int(network.config.upscale): network for network in networks}
        passes = [by_scale[factor] for factor in fewest_factors(scale, by_scale)]
    return passes[0] if passes[0].config.upscale == scale else Bicubic(first.config.in_chans, scale, passes)
