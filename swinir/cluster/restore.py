"""Images restored by Ray Data: waves of jobs, workers that hold models, and another try where a worker died.

    stream_pairs -> wave -> from_items -> map_batches(Worker) -> records -> the next wave

Ray's own repetition of tasks is off: it would wait for the place of a node that is gone, and repeat an image that ends
its process for ever. The driver knows which images have no record yet, and gives those out again.
"""

import json
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any

import ray
import ray.data
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from swinir.cluster.keeper import Keeper
from swinir.cluster.plan import Pair
from swinir.cluster.worker import Work, Worker
from swinir.image_io.reader import named
from swinir.photos.manifest import RECORDS, OutputError, Result, parse_row

WAVE = 50_000  # images that the driver holds at once; each wave starts its workers anew
BLOCK = 8  # images in one task: the next is read and the last written meanwhile
TRIES = 3  # of an image whose worker dies
OBJECT_STORE = 100 * 2**20  # bytes, of a local cluster: it holds names and records only
ASKING = 64  # workers whose records are written together
LOCAL = "local"
logger = logging.getLogger(__name__)


@contextmanager
def connected(address: str = LOCAL, workers: int | None = None) -> Iterator[None]:
    """Connect to a cluster within the block; "local" starts one on this machine, without dashboard and telemetry.

    Args:
        address: as `ray.init` takes it: HOST:PORT, ray://HOST:PORT or auto.
        workers: for a local cluster: at least so many processors are counted.

    Raises:
        OSError: if there is no cluster, or it fails.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address == LOCAL:
        cores = max(os.cpu_count() or 1, workers or 1)
        options |= {"include_dashboard": False, "num_cpus": cores, "object_store_memory": OBJECT_STORE}
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"ray\.")
        warnings.filterwarnings("ignore", category=ray.util.annotations.RayDeprecationWarning)
        try:
            ray.init(address=address, **options)
            yield
        except (ray.exceptions.RayError, ConnectionError) as error:
            line = str(error).strip().splitlines()[0]
            raise OSError(f"the Ray cluster {address} failed: {line}; run the same command again") from error
        finally:
            ray.shutdown()


def restore_on_cluster(
    pairs: Iterable[Pair | Result], work: Work, records: Path, *, workers: int | None = None
) -> Iterator[Result]:
    """Restore images by the workers of the cluster that is connected.

    Args:
        pairs: as `stream_pairs` lists them; only a wave of them is in memory.
        records: folder of results.jsonl, on this machine.
        workers: at most; None is one for each GPU, without GPUs one for each machine.

    Raises:
        OutputError: when no machine can write any more.
        RuntimeError: for an error of programming in a worker, with its traceback.
    """
    cluster = _Cluster(work, records, workers)
    stream = iter(pairs)
    while wave := list(islice(stream, WAVE)):
        for failed in (row for row in wave if isinstance(row, Result)):
            yield cluster.fail(failed)
        yield from cluster.restore({row[1]: row[0] for row in wave if not isinstance(row, Result)})


class _Cluster:
    """The keeper of records, and the sizes of workers."""

    def __init__(self, work: Work, records: Path, workers: int | None) -> None:
        self.wanted = workers
        nodes = [node for node in self._nodes() if node["Resources"].get("CPU")]
        if not nodes:
            raise OSError("the Ray cluster has no machine with processors for workers; start one with --num-cpus")
        gpus = sum(node["Resources"].get("GPU", 0) for node in nodes) if (work.device or "cuda") != "cpu" else 0
        self.gpus, self.excluded = int(gpus > 0), set[str]()
        cores = min(node["Resources"]["CPU"] for node in nodes)
        beside = max(node["Resources"].get("GPU", 0) for node in nodes) if gpus else -(-(workers or 1) // len(nodes))
        beside = max(1, int(beside))
        self.threads = work.threads or max(1, int(cores) // beside)
        self.work = replace(work, threads=self.threads, beside=beside)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        keeper = ray.remote(num_cpus=0, max_concurrency=ASKING, scheduling_strategy=here)(Keeper)
        self.keeper = keeper.remote(records.absolute())
        if ignored := ray.get(self.keeper.ignored.remote()):
            place = named(records / RECORDS)
            logger.warning("%s: %d lines are no records and were ignored", place, ignored)

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in ray.nodes() if node["Alive"]]

    def fail(self, result: Result) -> Result:
        """Record an image that no worker gets."""
        ray.get(self.keeper.add.remote(result))
        return result

    def restore(self, waiting: dict[str, str]) -> Iterator[Result]:
        """Restore a wave, inputs by output; what workers did not do is given out again, image by image."""
        size, deaths = BLOCK, Counter[str]()
        ray.get(self.keeper.take_done.remote())  # those that no worker got
        while waiting:
            refusals: dict[str, str] = {}
            for text in self._rows(waiting, size):
                row = json.loads(text)
                if "broken" in row:
                    raise RuntimeError(f"a worker failed:\n{row['broken']}")
                if "refused" in row:
                    refusals[row["node"]] = row["refused"]
                elif (result := parse_row(text)) and waiting.pop(result.output, None):
                    yield result
            # A worker that died had recorded some of the images of its block.
            for output, result in ray.get(self.keeper.take_done.remote()).items():
                if waiting.pop(output, None):
                    yield result
            for node, message in refusals.items():
                logger.warning("machine %s takes no more work: %s", node[:8], message)
            self.excluded |= refusals.keys()
            if refusals and self._places() == 0:
                raise OutputError(next(iter(refusals.values())))
            started = ray.get(self.keeper.take_started.remote())
            if refusals or not waiting:
                continue
            if not started:
                raise OSError("the workers of the Ray cluster end before they begin with an image; see the logs of Ray")
            deaths.update(waiting.keys() & started)
            for output in [output for output in waiting if deaths[output] == TRIES]:
                yield self._give_up(waiting.pop(output), output)
            size = 1
            if waiting:
                logger.warning("a worker died; %d images are given to others", len(waiting))

    def _give_up(self, source: str, output: str) -> Result:
        message = f"{named(source)}: the worker died {TRIES} times while it had this image"
        return self.fail(Result(source, output, "failed", f"{message}; it may lack memory, or the file is damaged"))

    def _places(self) -> int:
        """Return the number of workers that fit the machines which are not left out."""
        kind, each = ("GPU", 1) if self.gpus else ("CPU", self.threads)
        nodes = [node for node in self._nodes() if node["NodeID"] not in self.excluded]
        return sum(int(node["Resources"].get(kind, 0) // each) for node in nodes)

    def _rows(self, waiting: dict[str, str], size: int) -> Iterator[str]:
        """Yield the lines of JSON that workers return for jobs, in blocks of a size or less."""
        items = [json.dumps([source, output]) for output, source in waiting.items()]
        places = max(1, self._places())
        most = min(places, self.wanted or inf)
        blocks = max(1, -(-len(items) // size), min(len(items), int(4 * most)))
        first = int(min(most, blocks))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.max_errored_blocks = -1
        pool = ray.data.ActorPoolStrategy(
            min_size=1, initial_size=first, max_size=max(first, self.wanted or first),
            max_tasks_in_flight_per_actor=1 if size == 1 else 2,
        )  # fmt: skip
        left_out = {"ray.io/node-id": f"!in({', '.join(sorted(self.excluded))})"} if self.excluded else None
        dataset = ray.data.from_items(items, override_num_blocks=blocks).map_batches(
            Worker, batch_size=None, compute=pool, fn_constructor_args=(self.work, self.keeper),
            num_cpus=None if self.gpus else self.threads, num_gpus=self.gpus or None,
            label_selector=left_out, max_restarts=-1, max_task_retries=0,
        )  # fmt: skip
        for row in dataset.iter_rows():
            yield row["row"]
