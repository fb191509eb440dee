"""Speed, memory and exactness of networks, and of the ways to run one.

`timing` measures the ways to run one network (`variants`), `compare_networks` several networks on the same images.
"""
