"""One clip: checked, its models chosen once, its frames restored as images are, in segments that survive a kill."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import median_low

import av
import numpy as np

from swinir.atomic import atomic_path
from swinir.degradations.estimate import Findings
from swinir.image_io.errors import named
from swinir.image_io.picture import Picture
from swinir.locks import BusyError
from swinir.photos.batch import Batch, Clock, Policy, failure
from swinir.photos.jobs import Job, Output
from swinir.photos.loaded_models import LoadedModels
from swinir.photos.manifest import OutputError, Result, raise_output_errors, settings_digest
from swinir.photos.restore_photo import Decision, Treatment, decide, estimate, restore_photo
from swinir.video.clip import Clip, ClipError, frames, inspect
from swinir.video.color import from_rgb, to_rgb
from swinir.video.encode import CONTAINERS, Encoding, container_of, encode, join, rehearse
from swinir.video.flicker import Flicker, FrameSequence
from swinir.video.segments import FRAMES, Segments, discard
from swinir.weights.verify import sha256


@dataclass(frozen=True)
class VideoOptions:
    """The options of a clip beside those of its images.

    Attributes:
        encoding: of the output.
        seconds: restore this much from the first frame on; None restores all.
        steady: blend frames where nothing moves.
    """

    encoding: Encoding = field(default_factory=Encoding)
    seconds: float | None = None
    steady: bool = False

    def __post_init__(self) -> None:
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise ValueError(f"preview must be above 0 seconds, got {self.seconds:g}")


def plan_clip(source: Path, output: Path, naming: Output) -> Job:
    """Name the output of a clip: `output` itself, or a file in the folder that it is.

    Raises:
        ValueError: for an output of a format that is not written, and for the input itself.
    """
    if output.is_dir() or not output.suffix:
        kept = source.suffix.lower() in CONTAINERS.keys() - {".webm"}  # which holds AV1 alone
        suffix = source.suffix if kept else ".mkv"
        output /= f"{source.stem}{naming.request if naming.suffix is None else naming.suffix}{suffix}"
    container_of(output)
    if output.exists() and source.exists() and output.samefile(source):
        raise ValueError(f"the output would replace the input {named(source)}; name another with -o")
    return Job(source, output)


def restore_clip(
    job: Job,
    treatment: Treatment,
    models: LoadedModels,
    options: VideoOptions,
    policy: Policy,
    *,
    clock: Clock | None = None,
    planned: Callable[[Clip, float], None] = lambda clip, done: None,
    progress: Callable[[float], None] = lambda done: None,
) -> Result:
    """Restore a clip, or what is left of it after an interruption.

    Args:
        planned: called with the clip, before its frames are restored, and the share that is done already.
        progress: called with the share that is done.

    Raises:
        BusyError: while another run makes the same output.
        OutputError: when nothing more can be written.
    """
    batch = Batch(job.target.parent, treatment, models, Output(), policy)
    batch.settings = settings_digest(treatment, Output(), batch.precision, video=asdict(options), av=av.__version__)
    try:
        batch.open()
        result = batch.begin(job)
        if result is not None and result.status == "skipped":  # by a run that was killed before it had tidied up
            discard(job.target)
        if result is None:
            raise BusyError(f"{named(job.target)} is being made by another run; wait until it ends")
        if result.status == "begun":
            try:
                result = _Restoration(batch, job, options, clock or Clock(), planned, progress).run(result)
            except OutputError:
                raise
            except ClipError as error:
                result = replace(result, status="failed", error=str(error))
            except av.FFmpegError as error:
                result = replace(result, status="failed", error=f"{named(job.target)}: {error.strerror} by the encoder")
            except (MemoryError, RuntimeError, ValueError, OSError) as error:
                result = replace(result, status="failed", error=failure(job, error))
        return batch.record(result)
    finally:
        batch.lock.close()


@dataclass
class _Restoration:
    """One clip on its way."""

    batch: Batch
    job: Job
    options: VideoOptions
    clock: Clock
    planned: Callable[[Clip, float], None]
    progress: Callable[[float], None]

    def run(self, result: Result) -> Result:
        """Return the record of the clip, once its output has its name."""
        batch, job, options, start = self.batch, self.job, self.options, time.perf_counter()
        self.clip = clip = inspect(job.source, options.seconds, batch.policy.max_pixels)
        result = batch.allow(job, replace(result, width=clip.width, height=clip.height, notes=clip.notes))
        if result.status != "begun":
            return result
        samples = [Picture(self._pixels(frame)) for frame in clip.samples]
        self.measured = typical([estimate(sample) for sample in samples])
        self.decision = _even(decide(samples[0], batch.treatment, batch.models, self.measured), clip)
        rehearse(clip, self.decision.size, job.target, options.encoding)
        done = batch.described(result, self.decision, samples[0])
        del samples
        self.clip = replace(clip, samples=())
        with raise_output_errors(job.target):
            batch.record(replace(done, status="begun"))
            if done.status == "unchanged" and clip.whole and job.target.suffix.lower() == job.source.suffix.lower():
                with atomic_path(job.target) as temporary:
                    shutil.copyfile(job.source, temporary)
            else:
                flicker = self._restore(done)
                done = replace(done, status="restored", notes=(*done.notes, flicker.explain()))
            seconds = time.perf_counter() - start
            return replace(done, seconds=seconds, output_sha256=sha256(job.target))

    def _restore(self, result: Result) -> Flicker:
        """Restore the segments that are missing, and join all."""
        clip, target, options = self.clip, self.job.target, self.options
        request = {"input": result.input_sha256, "settings": result.settings, "models": [*map(list, result.experts)]}
        segments = Segments(target, request, restart=self.batch.policy.existing == "overwrite")
        sequence = FrameSequence(self.measured.noise_level if self.measured.noise.sure else 0.0, steady=options.steady)
        if segments.done:
            sequence.load(segments.path(segments.done - 1, ".npz"))
        begun = min(segments.done * FRAMES, len(clip.pts))
        self.planned(clip, begun / len(clip.pts))
        source = enumerate(_ahead(map(self._pixels, islice(frames(clip), begun, None))), begun)
        while segments.done * FRAMES < len(clip.pts):
            with atomic_path(segments.path(segments.done)) as temporary:
                restored = (self._frame(*numbered, sequence) for numbered in islice(source, FRAMES))
                encode(temporary, restored, clip, self.decision.size, options.encoding)
            with atomic_path(segments.path(segments.done, ".npz")) as temporary:
                sequence.save(temporary)
            segments.finish()
        with atomic_path(target) as temporary:
            join(temporary, [segments.path(number) for number in range(segments.done)], clip, target)
        discard(target)
        return sequence.flicker

    def _pixels(self, frame: av.VideoFrame) -> np.ndarray:
        """A frame of the source as uint16 RGB."""
        return to_rgb(frame, self.clip.tags.matrix, self.clip.tags.color_range)

    def _frame(self, position: int, pixels: np.ndarray, sequence: FrameSequence) -> av.VideoFrame:
        """Restore one frame."""
        clip, batch, start = self.clip, self.batch, time.perf_counter()
        restored = restore_photo(
            Picture(pixels), self.decision, batch.treatment, batch.models, batch.workspace,
            progress=lambda share: self.progress((position + share) / len(clip.pts)),
        )  # fmt: skip
        self.clock.busy += time.perf_counter() - start
        output = sequence.add(pixels, restored.pixels)
        frame = from_rgb(output, clip.pixel_format, clip.tags.matrix, clip.tags.color_range)
        frame.pts, frame.time_base = clip.pts[position], clip.time_base
        frame.color_range, frame.colorspace = clip.tags.color_range, clip.tags.matrix
        frame.color_primaries, frame.color_trc = clip.tags.primaries, clip.tags.transfer
        return frame


def typical(findings: Sequence[Findings]) -> Findings:
    """Return the estimates of the frame with the median noise level; JPEG by most frames, grey if all are."""
    middle = sorted(findings, key=lambda found: found.noise_level)[len(findings) // 2]
    qualities = [found.jpeg_quality for found in findings if found.jpeg_quality is not None]
    most = len(qualities) > len(findings) / 2
    return replace(
        middle,
        jpeg_quality=median_low(qualities) if most else None,
        jpeg_source="pixels" if most else None,
        gray=all(found.gray for found in findings),
    )


def _even(decision: Decision, clip: Clip) -> Decision:
    """Round an odd size down where chroma has half the samples; a ClipError if no other size was asked for."""
    height, width = decision.size
    halved = {"yuv420": (2, 2), "yuv422": (1, 2)}.get(clip.pixel_format[:6], (1, 1))
    even = height // halved[0] * halved[0], width // halved[1] * halved[1]
    if even == decision.size:
        return decision
    if decision.size == (clip.height, clip.width):
        raise ClipError(
            f"{named(clip.path)}: {width}x{height} in {clip.pixel_format} cannot be encoded; enlarge it by -s 2"
        )
    note = f"{even[1]}x{even[0]} instead of {width}x{height}: sides are even in {clip.pixel_format}"
    return replace(decision, size=even, notes=(*decision.notes, note))


def _ahead(items: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Items of an iterator, of which the next is made while one is used."""
    with ThreadPoolExecutor(1) as reader:
        following = reader.submit(next, items, None)
        while (item := following.result()) is not None:
            following = reader.submit(next, items, None)
            yield item
