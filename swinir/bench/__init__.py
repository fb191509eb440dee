"""Speed, memory and exactness of the ways to run a network.

subject (which network, which image) x variants (ways to run it) -> compare -> rows -> report.speed
"""
