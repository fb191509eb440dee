"""The display of `swinir restore`: a plan without work, a progress bar, a line for each image, and a summary."""

import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from swinir.image_io.picture import Picture
    from swinir.photos.batch import Clock
    from swinir.photos.jobs import Job
    from swinir.photos.loaded_models import LoadedModels
    from swinir.photos.manifest import Result
    from swinir.photos.restore_photo import Decision, Treatment

TIMED_FROM = 2**20  # pixels that networks compute: below, timing a small image would take longer than it is worth
ANNOUNCED_FROM = 20.0  # seconds
BAR = "{percentage:3.0f}%|{bar}| {n:.1f} of {total:.1f} megapixels [{elapsed}<{remaining}]{postfix}"


@contextmanager
def messages(level: int) -> Iterator[None]:
    """Print the package's log messages from a level on within the block."""
    logger, handler = logging.getLogger("swinir"), logging.StreamHandler(sys.stderr)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def duration(seconds: float) -> str:
    """Return a time in seconds, minutes or hours, as exact as an estimate deserves."""
    if seconds < 10:
        return f"{max(seconds, 0.1):.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def print_plans(jobs: "Sequence[Job]", treatment: "Treatment", models: "LoadedModels", max_pixels: int) -> int:
    """Print for each image the estimates, the models, and the expected time and memory; return the exit code."""
    from swinir.image_io.reader import ImageError, named, read_picture
    from swinir.photos.expectation import Stopwatch, expect
    from swinir.photos.loaded_models import short_name
    from swinir.photos.restore_photo import decide

    stopwatch, total, failed = Stopwatch(), 0.0, 0
    for job in jobs:
        try:
            picture = read_picture(job.source, max_pixels=max_pixels)
            decision = decide(picture, treatment, models)
        except ImageError as error:
            typer.echo(f"failed: {error}", err=True)
            failed += 1
            continue
        expected = expect(picture, decision, treatment, models)
        seconds = stopwatch.seconds(expected, treatment, models)
        total += seconds
        height, width = picture.pixels.shape[:2]
        names = ", ".join(map(short_name, decision.models)) or "no model"
        typer.echo(
            f"{named(job.source)} -> {named(job.target)}: {names}; {width}x{height} to "
            f"{decision.size[1]}x{decision.size[0]}, {expected.tiles} tile{'s' * (expected.tiles != 1)}, "
            f"about {duration(seconds)}, {max(expected.bytes / 1e6, 1):.0f} MB"
        )
        for line in (*decision.findings, *decision.notes):
            typer.echo(f"  {line}")
    typer.echo(f"{len(jobs) - failed} to restore in about {duration(total)} on {models.device}; nothing was written")
    return int(failed > 0)


class Display:
    """A progress bar, a line for each image, and a summary.

    Args:
        jobs: None if they are not known beforehand; the bar then counts images.
        models: to expect times by; None expects none.
        keep: keep the records in `results`.
    """

    def __init__(
        self,
        jobs: "Sequence[Job] | None",
        treatment: "Treatment",
        models: "LoadedModels | None" = None,
        *,
        explain: bool,
        verbose: bool,
        quiet: bool,
        keep: bool = False,
    ) -> None:
        from tqdm import tqdm

        from swinir.photos.expectation import Stopwatch, megapixels

        self.treatment, self.models, self.keep = treatment, models, keep
        self.explain, self.verbose, self.quiet = explain, verbose, quiet
        self.results: list[Result] = []
        self.counts: Counter[str] = Counter()  # of images by status
        self.stopwatch = Stopwatch()
        # On a terminal only; it moves with the tiles.
        shown = not quiet and sys.stderr.isatty()
        if jobs is None:
            self.total, self.done = None, None
            self.bar = tqdm(unit=" images", disable=not shown, dynamic_ncols=True)
            return
        self.total = len(jobs)
        sizes = [megapixels(job.source) if shown else 0.0 for job in jobs]
        self.done = list(accumulate(sizes, initial=0.0))  # megapixels after each number of images
        self.bar = tqdm(total=self.done[-1], bar_format=BAR, disable=not shown, dynamic_ncols=True)

    def measure(self, megapixels: float, share: float) -> None:
        """Set the size of the only job, which its header does not tell, and the share that an earlier run did."""
        self.done = [0.0, megapixels]
        self.bar.total = megapixels
        self.bar.initial = self.bar.n = share * megapixels

    def announce(self, job: "Job", picture: "Picture", decision: "Decision") -> None:
        """Print the expected time of an image that will take long."""
        from swinir.image_io.reader import named
        from swinir.photos.expectation import expect

        if self.models is None or self.quiet or self.treatment.run.compile:  # which is slow at first
            return
        expected = expect(picture, decision, self.treatment, self.models)
        if sum(expected.pixels.values()) < TIMED_FROM:
            return
        seconds = self.stopwatch.seconds(expected, self.treatment, self.models)
        if seconds >= ANNOUNCED_FROM:
            size = picture.pixels.shape[0] * picture.pixels.shape[1] / 1e6
            with self.bar.external_write_mode(file=sys.stderr):
                typer.echo(f"{named(job.source)}: {size:.1f} megapixels, about {duration(seconds)}", err=True)

    def progress(self, job: "Job", share: float) -> None:
        """Move the bar within an image."""
        from swinir.image_io.reader import named

        assert self.done is not None
        number = self.counts.total()
        before, after = self.done[number], self.done[min(number + 1, len(self.done) - 1)]
        self.bar.n = before + share * (after - before)
        self.bar.set_postfix_str(named(job.source)[-30:])

    def follow(self, results: "Iterable[Result]") -> None:
        """Print each result as it comes."""
        with self.bar:
            for result in results:
                self.counts[result.status] += 1
                if self.keep:
                    self.results.append(result)
                with self.bar.external_write_mode():
                    self._show(result)
                self.bar.n = self.counts.total() if self.done is None else self.done[self.counts.total()]
                self.bar.refresh()

    def _show(self, result: "Result") -> None:
        from swinir.image_io.reader import named
        from swinir.photos.loaded_models import short_name

        if result.status == "failed":
            typer.echo(f"failed: {result.error}", err=True)
            return
        if self.quiet:
            return
        source, target = named(result.input), named(result.output)
        if result.status == "skipped":
            typer.echo(f"{source}: skipped, {result.error}")
            return
        nothing = "no repair needed, copied" if result.status == "unchanged" else "no model"
        passes = ", ".join(short_name(name) for name, _ in result.experts) or nothing
        details = ""
        if self.verbose:
            details = f", {result.output_width}x{result.output_height}, {result.seconds or 0:.1f} s"
            details += f", {result.engine} in {result.precision}" if result.experts else ""
        typer.echo(f"{source} -> {target}: {passes}{details}")
        for line in (*(result.findings if self.explain else ()), *result.notes):
            typer.echo(f"  {line}")

    def summarise(self, folder: str, clock: "Clock | None" = None) -> None:
        """Print the numbers of images by status."""
        counts = self.counts
        missing = 0 if self.total is None else self.total - counts.total()
        parts = [f"{counts['restored']} restored"]
        parts += [f"{counts['unchanged']} copied"] * bool(counts["unchanged"])
        parts += [f"{counts['skipped']} skipped", f"{counts['failed']} failed"]
        parts += [f"{missing} not reached"] * bool(missing)
        busy = f"; networks computed {clock.utilisation:.0%} of the time" if self.verbose and clock else ""
        typer.echo(f"{', '.join(parts)}; see {folder}{busy}", err=bool(counts["failed"] or missing))
        sys.stdout.flush()
