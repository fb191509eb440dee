"""The benchmark sets of the paper: what they hold, how they get into a folder of sets, whether they are right there."""

from swinir.testsets.sets import BENCHMARK_SETS, BenchmarkSet, find_set

__all__ = ["BENCHMARK_SETS", "BenchmarkSet", "find_set"]
