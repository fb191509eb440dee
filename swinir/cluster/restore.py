"""Images restored by Ray: a keeper of the queue and the records, and workers that hold models and ask it for images.

    stream_pairs -> Keeper <-> Workers; Keeper -> records

Ray's own restarts are off: they would repeat an image that ends its process for ever.
"""

import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count, islice
from math import inf
from pathlib import Path
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from swinir.cluster.keeper import Keeper
from swinir.cluster.plan import Pair
from swinir.cluster.worker import Work, Worker
from swinir.image_io.reader import named
from swinir.photos.manifest import RECORDS, OutputError, Result

AHEAD = 2000  # images that wait in the keeper at most
TICK = 0.2  # seconds between looks at the workers
OBJECT_STORE = 80 * 2**20  # bytes, of a local cluster: it holds names and records only
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
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"ray\.")
        try:
            _init(address, options)
            yield
        except (ray.exceptions.RayError, ConnectionError) as error:
            line = str(error).strip().splitlines()[0]
            raise OSError(f"the Ray cluster {address} failed: {line}; run the same command again") from error
        finally:
            ray.shutdown()


def _init(address: str, options: dict[str, Any]) -> None:
    try:
        ray.init(address=address, **options)
    except Exception as error:  # Ray has no class for a cluster that starts too slowly, on a busy machine
        raise ConnectionError(str(error) or type(error).__name__) from error


def restore_on_cluster(
    pairs: Iterable[Pair | Result], work: Work, records: Path, *, workers: int | None = None
) -> Iterator[Result]:
    """Restore images by the workers of the cluster that is connected.

    Args:
        pairs: as `stream_pairs` lists them; they are taken as they are needed.
        records: folder of results.jsonl, on this machine.
        workers: at most; None is one for each GPU, without GPUs one for each machine.

    Raises:
        OutputError: when no machine can write any more.
        RuntimeError: for an error of programming in a worker, with its traceback.
    """
    crew = _Crew(work, records, workers)
    try:
        yield from crew.restore(iter(pairs))
    finally:
        crew.end()


@dataclass(eq=False)
class _Member:
    """A worker: its number, its machine, its actor, and what it does at the moment."""

    number: int
    node: str
    actor: Any
    call: ray.ObjectRef | None = None


class _Crew:
    """The keeper and the workers."""

    def __init__(self, work: Work, records: Path, workers: int | None) -> None:
        nodes = _nodes()
        if not nodes:
            raise OSError("the Ray cluster has no machine with processors for workers; start one with --num-cpus")
        gpus = max(node["Resources"].get("GPU", 0) for node in nodes) if work.device != "cpu" else 0
        self.kind = "GPU" if gpus else "CPU"
        cores = int(min(node["Resources"]["CPU"] for node in nodes))
        beside = int(gpus) or -(-(workers or 1) // len(nodes))
        self.threads = work.threads or max(1, cores // beside)
        self.each = 1 if gpus else self.threads  # of `kind`, for a worker
        self.work = replace(work, threads=self.threads, beside=beside)
        self.most = workers or inf
        self.members: list[_Member] = []
        self.numbers = count()
        self.refusals: dict[str, str] = {}  # by machine
        self.keeper = ray.remote(Keeper).options(
            num_cpus=0, max_concurrency=ASKING, scheduling_strategy=_at(ray.get_runtime_context().get_node_id())
        ).remote(records.absolute())  # fmt: skip
        if ignored := ray.get(self.keeper.ignored.remote()):
            place = named(records / RECORDS)
            logger.warning("%s: %d lines are no records and were ignored", place, ignored)

    def restore(self, rows: Iterator[Pair | Result]) -> Iterator[Result]:
        """Restore images until each has a result."""
        waiting = seen = 0
        while True:
            fresh = list(islice(rows, max(0, AHEAD - waiting)))
            seen += len(fresh)
            results, waiting, suspects = ray.get(self.keeper.exchange.remote(fresh))
            yield from results
            if waiting or suspects:
                self._hire(min(self.most, seen))
                self._begin(waiting, suspects)
            elif not fresh and not any(member.call for member in self.members):
                return
            self._look()

    def _hire(self, most: float) -> None:
        """Start workers where there is room, on the machine with the most of it first."""
        while len(self.members) < most:
            ours = Counter(member.node for member in self.members)
            room = {
                node["NodeID"]: int(node["Resources"].get(self.kind, 0) // self.each) - ours[node["NodeID"]]
                for node in _nodes()
                if node["NodeID"] not in self.refusals
            }
            best = max(room, key=room.__getitem__, default="")
            if room.get(best, 0) <= 0:
                break
            number = next(self.numbers)
            actor = ray.remote(Worker).options(
                num_cpus=0 if self.kind == "GPU" else self.each, num_gpus=int(self.kind == "GPU"),
                scheduling_strategy=_at(best),
            ).remote(self.work, self.keeper, number)  # fmt: skip
            self.members.append(_Member(number, best, actor))
        if not self.members:
            raise OutputError(next(iter(self.refusals.values()), "the Ray cluster has no machine left for workers"))

    def _begin(self, waiting: int, suspects: int) -> None:
        """Let idle workers ask for images, first for those whose worker died."""
        for member in self.members:
            if member.call is None and (suspects > 0 or waiting):
                member.call = member.actor.restore.remote(suspects > 0)
                suspects -= 1

    def _look(self) -> None:
        """Wait a moment for workers that have nothing left to do, that refuse work or that died."""
        calls = {member.call: member for member in self.members if member.call is not None}
        ready, _ = ray.wait(list(calls), timeout=TICK) if calls else ([], [])
        for call in ready:
            member = calls[call]
            try:
                refusal, died = ray.get(call), False
            except (ray.exceptions.RayActorError, ray.exceptions.ActorUnschedulableError):
                refusal, died = "", True
            except ray.exceptions.RayTaskError as error:
                raise RuntimeError(f"a worker failed:\n{error}") from error
            member.call = None
            if refusal or died:
                self._give_up(member, refusal)

    def _give_up(self, member: _Member, refusal: str) -> None:
        """Give the images of a worker to others."""
        ray.kill(member.actor)
        self.members.remove(member)
        images, begun = ray.get(self.keeper.lost.remote(member.number, not refusal))
        if begun and not refusal:
            logger.warning("a worker died; %d images are given to others", images)
        else:
            refusal = refusal or "its worker ended before it had an image; see the logs of Ray"
            self.refusals[member.node] = refusal
            logger.warning("machine %s takes no more work: %s", member.node[:8], refusal)

    def end(self) -> None:
        """End all processes."""
        for member in self.members:
            ray.kill(member.actor)
        ray.kill(self.keeper)


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]


def _at(node: str) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node, soft=False)
