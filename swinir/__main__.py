"""`python -m swinir`, and so `torchrun -m swinir train ...`."""

from swinir.cli.main import run

if __name__ == "__main__":
    run()
