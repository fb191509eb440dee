"""`swinir reproduce`: the paper's tables and figures, one command each."""

import typer

from swinir.cli import reproduce_ablations, reproduce_joint, reproduce_tables

app = typer.Typer(
    name="reproduce",
    help="Measure the paper's tables and figures again, beside what was published.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
reproduce_tables.add_to(app)
reproduce_ablations.add_to(app)
app.command("joint")(reproduce_joint.joint)
