"""`swinir reproduce`: the paper's tables and figures, one command each."""

import typer

from swinir.cli import reproduce_tables, reproduce_training

app = typer.Typer(
    name="reproduce",
    help="Measure the paper's tables and figures again and compare with the published results.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
reproduce_tables.add_to(app)
reproduce_training.add_to(app)
