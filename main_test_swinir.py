"""The released tester's command: `python main_test_swinir.py --task ... --model_path ...` is `swinir test ...`."""

import sys

from swinir.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["test", *sys.argv[1:]]))
