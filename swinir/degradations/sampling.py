"""Random draws from options, and the checks that options make of themselves."""

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Range = tuple[float, float]
T = TypeVar("T")


def pick(rng: np.random.Generator, items: Sequence[T], probs: Sequence[float] | None = None) -> T:
    """One of the items, all equally likely unless probabilities are given."""
    if probs is None:
        return items[int(rng.integers(len(items)))]
    return items[int(np.searchsorted(np.cumsum(probs)[:-1], rng.random(), side="right"))]


def draw_integer(rng: np.random.Generator, limits: Range) -> int:
    """A whole number, both limits included."""
    return int(rng.integers(int(limits[0]), int(limits[1]) + 1))


def draw_log_uniform(rng: np.random.Generator, limits: Range) -> float:
    """A number whose logarithm is uniform."""
    return math.exp(rng.uniform(math.log(limits[0]), math.log(limits[1])))


def check_options(options: "DataclassInstance") -> None:
    """Check the fields of a dataclass by their names: `_prob`, `_probs` and `_range`.

    Raises:
        ValueError: naming the field, its value and what it must be.
    """
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name.endswith("_prob") and not 0 <= value <= 1:
            raise ValueError(f"{field.name} must be from 0 to 1, got {value}")
        if field.name.endswith("_probs") and (min(value) < 0 or abs(sum(value) - 1) > 1e-6):
            raise ValueError(f"{field.name} must be probabilities that sum to 1, got {value}")
        if field.name.endswith("_range") and not 0 <= value[0] <= value[1]:
            raise ValueError(f"{field.name} must be (smaller, larger) and not negative, got {value}")
