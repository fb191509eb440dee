"""Entry point of the `swinir` command: the subcommands, and exit codes for errors.

Subcommand modules import torch inside their functions, so that `swinir --help` answers at once.
"""

import difflib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any

import typer

# The threads of GNU OpenMP, which PyTorch uses, spin while they wait for one another. On a busy machine this
# multiplies the time (measured: 4 to 29 s instead of 1.7 s); a shorter spin costs nothing on a quiet one. torch reads
# the variable when it is imported, so it is set first; a value set by the user is kept.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from swinir.cli import (
    bench,
    compare,
    data,
    demo,
    export,
    info,
    report,
    reproduce,
    restore,
    restore_options,
    serve,
    test,
    train,
    video,
    web,
    zoo,
)
from swinir.cli.options import GroupedHelp
from swinir.version import __version__

UsageError: Any = typer.BadParameter.__base__  # which typer does not export

app = typer.Typer(
    name="swinir",
    help="Restore images with SwinIR: super-resolution, denoising and JPEG artifact removal.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"token_normalize_func": lambda word: word.replace("_", "-")},  # both spellings of an option
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"swinir {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


app.command("restore", cls=GroupedHelp)(restore.restore)
app.command("video", cls=GroupedHelp)(video.video)
app.command("report")(report.report)
app.command("serve", cls=GroupedHelp)(serve.serve)
app.command("web", cls=GroupedHelp)(web.web)
app.command("test")(test.benchmark)
app.command("demo")(demo.demo)
app.command("compare")(compare.compare)
app.command("bench")(bench.bench)
app.command("info")(info.info)
app.command("export")(export.export)
app.command("train")(train.train)
app.add_typer(zoo.app, name="zoo")
app.add_typer(data.app, name="data")
app.add_typer(reproduce.app, name="reproduce")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit code: 0 done, 1 some images failed, 2 wrong usage, 130 / 143 interrupted.

    A user's mistake (ValueError, OSError) or a missing package becomes one line on stderr; set SWINIR_DEBUG=1 for the
    traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["test"]:
        words = test.expand_bare_tile(words)
    if words[:1] == ["restore"]:
        words = restore_options.expand_bare_ray(words)
    if words[:1] == ["compare"]:
        words = compare.expand_models(words)
    _open_streams()
    before = {kind: signal.signal(kind, _leave) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = app(args=words, prog_name="swinir", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except UsageError as error:
        if near := getattr(error, "possibilities", None):  # all that are near; the nearest is meant
            error.possibilities = difflib.get_close_matches(getattr(error, "option_name", ""), near, n=1, cutoff=0)
        error.show()
        return int(error.exit_code)
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else int(bool(leave.code))
    except BrokenPipeError:  # whoever read the output has ended, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is still in buffers
        return 1  # as typer ends where it meets this error
    except (ValueError, OSError, ArithmeticError, ImportError, MemoryError, RuntimeError) as error:
        if os.environ.get("SWINIR_DEBUG") or (isinstance(error, RuntimeError) and not _lacks_memory(error)):
            raise
        text = " ".join(str(error).split())
        if isinstance(error, MemoryError | RuntimeError):
            text = f"out of memory ({text or type(error).__name__}); a smaller image, tile, batch or network needs less"
        print(f"swinir: {text}", file=sys.stderr)
        return 2
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler or signal.SIG_DFL)


def _lacks_memory(error: BaseException) -> bool:
    from swinir.inference.forward import out_of_memory

    return out_of_memory(error)


def _open_streams() -> None:
    """Open the null device in place of closed standard streams, so that no output file becomes one of them."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115 - to the end


def _leave(signum: int, _frame: FrameType | None) -> None:
    # SystemExit rather than KeyboardInterrupt: it runs `finally` blocks and keeps its exit code.
    print(f"swinir: {signal.Signals(signum).name}, leaving", file=sys.stderr)
    raise SystemExit(128 + signum)


def run() -> None:
    """The console script."""
    raise SystemExit(main())
