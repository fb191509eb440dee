"""The jobs of a cluster as pairs of texts, input and output, listed folder by folder while others are restored."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from swinir.cluster.storage import as_text, folders, is_url, join
from swinir.image_io.reader import named
from swinir.photos.jobs import Output, check_folders, no_images, plan_jobs
from swinir.photos.manifest import Result

Pair = tuple[str, str]


def stream_pairs(
    inputs: Sequence[Path], output: Path, naming: Output, *, recursive: bool = False
) -> Iterator[Pair | Result]:
    """List input and output of each image; of an image whose output another one of its folder has, a failed record.

    Args:
        inputs: one folder or URL of a folder; or files.

    Raises:
        FileNotFoundError, ValueError: as `plan_jobs`.
    """
    given, place = as_text(inputs[0]), as_text(output)
    if len(inputs) > 1 or not (is_url(given) or inputs[0].is_dir()):
        if any(is_url(as_text(path)) or path.is_dir() for path in inputs) or is_url(place):
            raise ValueError("--ray takes one folder or URL of a folder, or files for a local folder of outputs")
        jobs = plan_jobs(inputs, output, naming)
        if jobs[0].target == output:
            raise ValueError(f"{named(output)} is the name of one image, and --ray is for many; name a folder with -o")
        yield from ((str(job.source), str(job.target)) for job in jobs)
        return
    check_folders(given, place, _absolute(given), _absolute(place), naming, recursive)
    found = False
    for below, names in folders(given, recursive):
        seen: dict[str, str] = {}
        for name in names:
            found = True
            pair = join(given, below, name), join(place, below, naming.name(Path(name)))
            first = seen.setdefault(pair[1].casefold(), name)  # some file systems ignore case
            if first == name:
                yield pair
            else:
                message = f"{named(pair[0])}: its output would be that of {first}; restore it into another folder"
                yield Result(*pair, "failed", message)
    if not found:
        raise no_images(given, recursive)


def _absolute(text: str) -> str:
    return text.rstrip("/") if is_url(text) else str(Path(text).resolve())
