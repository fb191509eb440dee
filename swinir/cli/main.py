"""Entry point of the `swinir` command: gathers the subcommands and turns errors into exit codes.

Subcommand modules import torch inside their functions, so that `swinir --help` answers at once.
"""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import click
import typer

from swinir.cli import info, zoo

app = typer.Typer(
    name="swinir",
    help="Restore images with SwinIR: super-resolution, denoising and JPEG artifact removal.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("info")(info.info)
app.add_typer(zoo.app, name="zoo")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code: 0 done, 1 some images failed, 2 wrong usage, 130 / 143 interrupted.

    A user's mistake (ValueError, OSError) becomes one line on stderr; set SWINIR_DEBUG=1 for the traceback.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        result = app(args=list(sys.argv[1:] if argv is None else argv), prog_name="swinir", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        print("swinir: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("SWINIR_DEBUG"):
            raise
        print(f"swinir: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return result if isinstance(result, int) else 0


def _terminate(_signum: int, _frame: FrameType | None) -> None:
    print("swinir: terminated", file=sys.stderr)
    raise SystemExit(143)


def run() -> None:
    """The console script."""
    raise SystemExit(main())
