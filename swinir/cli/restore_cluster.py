"""`swinir restore --ray`: the same command on a cluster, or on all GPUs of this machine."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from swinir.cluster.storage import as_text, is_url

if TYPE_CHECKING:
    from swinir.photos.batch import Policy
    from swinir.photos.jobs import Output, Shard
    from swinir.photos.manifest import Result
    from swinir.photos.restore_photo import Treatment

RECORDS_OF_URLS = Path("restored")
Given = tuple["Treatment", "Output", "Policy", str | None, str | None]  # the last are device and backend


def restore_by_ray(
    inputs: Sequence[Path],
    output: Path,
    given: Given,
    address: str,
    part: "Shard",
    *,
    recursive: bool,
    workers: int | None,
    records: Path | None,
) -> "Iterator[Result]":
    """Check the options, and return the results of the cluster, which are made while they are taken.

    Raises:
        ImportError: without Ray, naming the extra.
        FileNotFoundError, ValueError: for a mistake.
    """
    import torch

    from swinir.cluster.plan import stream_pairs
    from swinir.inference.runtimes import optional
    from swinir.photos.loaded_models import LoadedModels

    optional("ray", "ray")
    from swinir.cluster.restore import connected, restore_on_cluster
    from swinir.cluster.worker import Work

    treatment, naming, policy, device, backend = given
    if device not in (None, "cpu", "cuda"):
        raise ValueError(f"--ray gives each worker a GPU; --device must be cpu or cuda, got {device!r}")
    if treatment.model is not None:
        LoadedModels(torch.device("cpu")).get(treatment.model)  # a mistyped name stops here
    folder = None if is_url(as_text(output)) else output
    work = Work(treatment, naming, policy, folder, Path.cwd(), device, backend)
    pairs = stream_pairs(inputs, output, naming, recursive=recursive)
    first = next(pairs)  # a mistake stops here
    mine = (row for row in chain([first], pairs) if not isinstance(row, tuple) or row[1] in part)

    def results() -> "Iterator[Result]":
        with connected(address, workers):
            yield from restore_on_cluster(mine, work, records or folder or RECORDS_OF_URLS, workers=workers)

    return results()
