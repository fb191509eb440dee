"""Faults of workers on a cluster: what happens depends on names of images and on files in a folder."""

import errno
import os
import time
from pathlib import Path

import ray

from swinir.cluster.worker import Worker
from swinir.photos import batch

FOLDER = "SWINIR_TEST_FAULTS"  # environment variable of the workers: where the files are
# Files that hold the numbers of machines:
FULL = "full"  # its disk is full
HANGS = "hangs"  # its workers never end
# Files without content:
PAUSE = "pause"  # images named "wait" wait while this file is there
MET = "met"  # the machine has met its fault; the other machines wait for this file if one is to have a fault


class FaultyWorker(Worker):
    """A worker with faults, in place of `swinir.cluster.restore.Worker`."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        _install()


def _install() -> None:
    folder = Path(os.environ[FOLDER])
    restore, write = batch.Batch.restore, batch.write_picture

    def here(fault: str) -> bool:
        file = folder / fault
        return file.exists() and ray.get_runtime_context().get_node_id() in file.read_text()

    def wait(condition) -> None:
        while condition():
            time.sleep(0.02)

    def restore_or_die(self, item, *args, **options):
        name = item.job.source.name
        if "always" in name or ("once" in name and _first(folder / name)):
            os._exit(9)
        if here(HANGS):
            (folder / MET).touch()
            wait(lambda: True)
        if (folder / FULL).exists() or (folder / HANGS).exists():
            wait(lambda: not here(FULL) and not (folder / MET).exists())
        wait(lambda: "wait" in name and (folder / PAUSE).exists())
        return restore(self, item, *args, **options)

    def write_or_refuse(path, *args, **options):
        if here(FULL):
            (folder / MET).touch()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, *args, **options)

    batch.Batch.restore, batch.write_picture = restore_or_die, write_or_refuse


def _first(file: Path) -> bool:
    try:
        file.open("x").close()
    except FileExistsError:
        return False
    return True
