"""The benchmark sets of the paper: their contents, their preparation from downloads, and checks of their files."""

from swinir.testsets.sets import BENCHMARK_SETS, BenchmarkSet, find_set

__all__ = ["BENCHMARK_SETS", "BenchmarkSet", "find_set"]
