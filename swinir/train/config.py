"""Training configurations: frozen, typed, read from TOML, and checked before any work starts."""

import difflib
import functools
import operator
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from swinir.degradations.chains import chain_options
from swinir.evaluation.protocol import Protocol
from swinir.models.phases import whole
from swinir.models.swinir import NetworkConfig
from swinir.tasks import TaskSpec, get_task

Positive = Annotated[int, Field(ge=1, lt=2**31)]
NotNegative = Annotated[int, Field(ge=0, lt=2**63)]
VGG19Layer = Annotated[int, Field(ge=0, le=36)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Betas = tuple[Share, Share]
Scale = Annotated[float, Field(ge=1, le=8)]
Quality = Annotated[int, Field(ge=1, le=100)]
REST_LR = 1e-3  # of Adam beside Muon


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


Folders = Annotated[tuple[Path, ...], BeforeValidator(_listed)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Section(BaseModel):
    """A section of a configuration: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(Section):
    """Training and validation images, and the patches cut from them.

    Attributes:
        train: one or several folders of ground-truth images, searched with their subfolders; "@scikit-image" is the
            folder of photographs that comes with scikit-image.
        train_lq: one folder of low-quality images for each of `train`, with the same relative names or with x{scale}
            appended; without them low-quality images are made as `[degradation]` says.
        images: number of images to train on: whole folders in their order, then images evenly spaced in the next.
        draw: "pixels" draws large images more often (every place is equally likely), "images" draws all equally often.
        patch: side of the low-quality patch in pixels.
        batch: patches of one optimizer step, over all processes and accumulated parts.
        holdout: number of training images kept for validation, evenly spaced in the sorted list.
        validate_gt: a folder of ground-truth images to validate on, instead of `holdout`.
        validate_lq: their low-quality images, paired as the tester pairs them.
        cache: a folder for decoded images, which are memory-mapped; without it they are all kept in memory.
        workers: processes that prepare batches; 0 prepares them between the steps. Unset: up to 8 with a GPU, else 0.
    """

    train: Folders
    train_lq: Folders = ()
    images: Positive | None = None
    draw: Literal["pixels", "images"] = "pixels"
    patch: Annotated[int, Field(ge=1, le=4096)] = 64
    batch: Annotated[int, Field(ge=1, le=2**20)] = 32
    holdout: NotNegative = 0
    validate_gt: Path | None = None
    validate_lq: Path | None = None
    cache: Path | None = None
    workers: Annotated[int, Field(ge=0, le=1024)] | None = None


class DegradationConfig(Section):
    """Degradation that makes low-quality patches. Defaults follow from the task and its level.

    Attributes:
        kind: MATLAB's bicubic of the whole image, Gaussian noise, JPEG, the chain of BSRGAN or Real-ESRGAN, or the
            noise and compression of photographs.
        noise: standard deviation in units of 1/255, or the range that it is drawn from.
        quality: JPEG quality, or the range that it is drawn from.
        log_quality: True draws the logarithm of the quality uniformly, so that low qualities are met more often.
        margin: pixels by which a patch is larger while it is compressed, before it is cut to size.
        unaligned: share of compressed patches that are cut anywhere within the margin, so that the grid of JPEG blocks
            does not start at the patch's corner.
        double_prob: share of JPEG patches that are compressed twice, first with another quality of the range and
            another place of the blocks.
        full_chroma_prob: share of JPEG compressions of colour patches without chroma subsampling.
        gray_prob: share of colour patches that are made grey, ground truth included: three equal channels, with the
            same noise in each, or compressed as a grey image.
        soft_prob: share of patches that are blurred first, ground truth included, since photographs at a camera's full
            size are softer than reduced ones.
        options: fields of `BSRGANOptions`, `BSRGANPlusOptions`, `RealESRGANOptions` or `PhotoOptions`.
    """

    kind: Literal["bicubic", "noise", "jpeg", "bsrgan", "bsrgan_plus", "realesrgan", "photo"] | None = None
    noise: Weight | tuple[Weight, Weight] | None = None
    quality: Quality | tuple[Quality, Quality] | None = None
    margin: NotNegative = 8
    unaligned: Share = 0.5
    log_quality: bool = False
    double_prob: Share = 0.0
    full_chroma_prob: Share = 0.0
    gray_prob: Share = 0.0
    soft_prob: Share = 0.0
    options: dict[str, Any] = {}


class InitConfig(Section):
    """Initial weights.

    Attributes:
        weights: path of a checkpoint, FILE:TASK of one for several tasks, or its name in the zoo.
        allow_mismatch: beginnings of layer names that may be missing, left over or of another shape; these layers keep
            their random initial weights.
        adapt_scale: for networks that end in "pixelshuffledirect": initialize the convolution before the shuffle from
            a checkpoint of another scale, each subpixel from the nearest one. A random convolution takes thousands of
            steps to get there. A network of any scale is initialized so that it equals the checkpoint at its scale, and
            one of a scale so that it equals a checkpoint of any scale.
        discriminator: weights of a discriminator, as a run with an adversarial loss writes them.
    """

    weights: str | None = None
    allow_mismatch: Names = ()
    adapt_scale: bool = False
    discriminator: Path | None = None


class PerceptualConfig(Section):
    """Distance between VGG19 features (Section 3.1; Wang et al., ESRGAN).

    Attributes:
        layers: indices into torchvision's `vgg19().features`; by default the last convolution of each stage (KAIR).
        layer_weights: one weight for each layer.
        weights: a file with VGG19's weights; without one torchvision downloads them.
    """

    weight: Weight = 1.0
    layers: Annotated[tuple[VGG19Layer, ...], Field(min_length=1)] = (2, 7, 16, 25, 34)
    layer_weights: tuple[Weight, ...] = (0.1, 0.1, 1.0, 1.0, 1.0)
    weights: Path | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.layers)) != len(self.layers):
            raise ValueError(f"layers must name no layer twice, got {list(self.layers)}")
        if len(self.layers) != len(self.layer_weights):
            raise ValueError(
                f"each layer needs one weight, got {len(self.layers)} layers and {len(self.layer_weights)} weights"
            )
        return self


class SpectrumConfig(Section):
    """Distance between magnitudes of local spectra, windows of `side` pixels: texture of any phase."""

    weight: Weight = 1.0
    side: Annotated[int, Field(ge=4, le=256, multiple_of=2)] = 16


class AdversarialConfig(Section):
    """U-Net discriminator with spectral normalisation, its loss, and its Adam optimizer."""

    objective: Literal["vanilla", "lsgan", "relativistic"] = "vanilla"
    weight: Weight = 0.1
    num_feat: Positive = 64
    lr: PositiveFloat = 1e-4
    betas: Betas = (0.9, 0.999)


class LossConfig(Section):
    """Pixel loss: L1 (super-resolution) or Charbonnier (denoising and JPEG), Section 3.1, Eq. 7 and 8; or L2."""

    name: Literal["l1", "charbonnier", "l2"] = "l1"
    epsilon: PositiveFloat = 1e-9  # Charbonnier's, as in the published recipe; the paper's 1e-3 is squared
    weight: Weight = 1.0
    spectrum: SpectrumConfig | None = None
    perceptual: PerceptualConfig | None = None
    adversarial: AdversarialConfig | None = None


class OptimizerConfig(Section):
    """Adam, as published, or Muon for the weights of linear layers and Adam for all other parameters.

    Attributes:
        lr: learning rate of Adam, or of Muon, scaled so that its updates are as large as those of AdamW.
        rest_lr: learning rate of Adam beside Muon, 1e-3 by default. Both learning rates follow the schedule.
        betas: of Adam.
        weight_decay: Adam's L2 penalty on all parameters, or Muon's decoupled decay of the linear layers only.
        clip_norm: largest norm of the gradient of all parameters together.
    """

    name: Literal["adam", "muon"] = "adam"
    lr: PositiveFloat = 2e-4
    rest_lr: PositiveFloat | None = None
    betas: Betas = (0.9, 0.999)
    weight_decay: Weight = 0.0
    clip_norm: PositiveFloat | None = None

    @model_validator(mode="before")
    @classmethod
    def _with_rest_lr(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("name") == "muon" and values.get("rest_lr") is None:
            return values | {"rest_lr": REST_LR}
        return values


class ScheduleConfig(Section):
    """Learning rate over the iterations: linear warm-up, then halving at milestones or a cosine to `final`."""

    iterations: Positive
    warmup: NotNegative = 0
    kind: Literal["multistep", "cosine"] = "multistep"
    milestones: tuple[int, ...] = ()
    gamma: Share = 0.5
    final: Share = 0.0  # cosine: last learning rate as a share of the first


class TrainConfig(Section):
    """A training run. Unknown keys are refused.

    Attributes:
        name: name of the run, its folder and its final weights.
        task: a key of `swinir.tasks.TASKS`, which decides the network, the degradation and the metrics.
        scale, noise, jpeg: level of the task, as in the tester's options. A range of scales trains one network for any
            of them (upsampler "any"): each batch has one, drawn uniformly, and validation has `validated_scales`.
        network: overrides for fields of the task's released network; `name = "rcan"` trains RCAN instead.
        accumulate: parts of a batch that are run one after the other, to need less memory.
        precision: type of products and convolutions in the network; parameters, residuals and losses are float32,
            or float64 for "fp64".
        tensorboard: also write TensorBoard's event files.
        save_every, log_every, validate_every: iterations between states, rows and validations.
        keep: number of states kept besides the best one.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]+$")]
    task: str
    scale: Positive | tuple[Scale, Scale] = 1
    noise: Positive = 15
    jpeg: Quality = 40
    data: DataConfig
    schedule: ScheduleConfig
    degradation: DegradationConfig = DegradationConfig()
    init: InitConfig = InitConfig()
    network: dict[str, Any] = {}
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    accumulate: Positive = 1
    channels_last: bool = False
    compile: bool = False
    tensorboard: bool = False
    seed: NotNegative = 0
    save_every: Positive = 1000
    log_every: Positive = 100
    validate_every: Positive = 1000
    keep: Positive = 3

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.network_config()
        data = self.data
        if data.train_lq and len(data.train_lq) != len(data.train):
            raise ValueError(
                f"data.train_lq needs one folder for each of data.train, got {len(data.train_lq)} for {len(data.train)}"
            )
        if data.holdout and data.validate_gt:
            raise ValueError("data.holdout and data.validate_gt are two ways to validate; set one of them")
        if data.batch % self.accumulate:
            raise ValueError(f"data.batch must be a multiple of accumulate, got {data.batch} and {self.accumulate}")
        for name in ("noise", "quality"):
            level = getattr(self.degradation, name)
            if isinstance(level, tuple) and level[0] > level[1]:
                raise ValueError(f"degradation.{name} must go from low to high, got {level[0]} to {level[1]}")
        if self.loss.perceptual and self.task_row.gray:
            raise ValueError("loss.perceptual needs colour images, the task is grey; leave it out")
        self._check_optimizer()
        chain_options(self.degradation_kind, self.degradation.options)
        if isinstance(self.scale, tuple):
            self._check_scales(*self.scale)
            return self
        keeps_size = ("noise", "jpeg", "photo")
        if not data.train_lq and (self.degradation_kind in keeps_size) != (self.scale == 1):
            raise ValueError(f"degradation {self.degradation_kind!r} does not go with scale {self.scale}")
        return self

    def _check_scales(self, low: float, high: float) -> None:
        if low >= high:
            raise ValueError(f"scale must go from low to high, got {low:g} to {high:g}")
        if self.degradation_kind != "bicubic":
            raise ValueError(f"a range of scales needs the degradation 'bicubic', got {self.degradation_kind!r}")
        if self.data.train_lq or self.data.validate_lq:
            raise ValueError(
                "a range of scales needs ground truths only, low-quality images are made; "
                "leave data.train_lq and data.validate_lq out"
            )
        if self.network_name == "rcan" or self.network_config().upsampler != "any":
            raise ValueError('a range of scales needs SwinIR with the upsampler "any"; leave both options out')

    def _check_optimizer(self) -> None:
        options = self.optimizer
        if options.name == "adam":
            if options.rest_lr is not None:
                raise ValueError(
                    f'optimizer.rest_lr is for optimizer.name = "muon", got {options.rest_lr} with "adam"; '
                    f"leave it out, Adam's learning rate is optimizer.lr"
                )
            return
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(
                f'optimizer.name = "muon" needs PyTorch 2.9 or newer, this is {torch.__version__}; '
                f'upgrade it or set optimizer.name = "adam"'
            )
        if self.network_name == "rcan":
            raise ValueError('optimizer.name = "muon" needs linear layers, RCAN has none; set it to "adam"')

    @property
    def task_row(self) -> TaskSpec:
        return get_task(self.task)

    @property
    def degradation_kind(self) -> str:
        """Name of the degradation that makes low-quality patches."""
        return self.degradation.kind or self.task_row.training

    @property
    def top_scale(self) -> float:
        """The scale, or the largest one of the range."""
        return whole(self.scale[1]) if isinstance(self.scale, tuple) else self.scale

    @property
    def validated_scales(self) -> tuple[float, ...]:
        """The scale, or the task's own ones within the range; the largest one if there are none."""
        if not isinstance(self.scale, tuple):
            return (self.scale,)
        low, high = self.scale
        return tuple(scale for scale in self.task_row.scales if low <= scale <= high) or (self.top_scale,)

    @property
    def protocol(self) -> Protocol:
        """The tester's protocol for this task and level."""
        return Protocol(self.task_row, scale=self.top_scale, noise=self.noise, jpeg=self.jpeg)

    @property
    def network_name(self) -> str:
        """Name of the architecture: "swinir" or "rcan"."""
        return str(self.network.get("name", "swinir"))

    def network_config(self) -> NetworkConfig:
        """Return the network to train: the task's released one with this configuration's overrides."""
        task = self.task_row
        if isinstance(self.scale, tuple):
            base = task.network_for(task.scales[0]).to_dict() | {"upsampler": "any", "upscale": self.top_scale}
        else:
            base = task.network_for(self.scale).to_dict()
        base["img_size"] = self.data.patch
        if self.network_name == "rcan":
            return NetworkConfig.from_dict(base)  # for the channels and the scale that RCAN takes
        if self.network_name != "swinir":
            raise ValueError(f"network.name must be swinir or rcan, got {self.network_name!r}")
        overrides = {key: value for key, value in self.network.items() if key != "name"}
        for key, value in overrides.items():
            if key in base and not _same_type(value, base[key]):
                raise ValueError(f"network.{key} must be of the type of {base[key]!r}, got {value!r}")
        return NetworkConfig.from_dict(base | overrides)


def _same_type(value: Any, example: Any) -> bool:
    if isinstance(example, list):
        return isinstance(value, list | tuple) and all(type(item) is int for item in value)
    return type(value) is type(example) or (type(example) is float and type(value) is int)


def load_config(path: Path | str, overrides: tuple[str, ...] | list[str] = ()) -> TrainConfig:
    """Read the TOML file of a training and apply `section.key=value` overrides, as `read_config` does."""
    return read_config(path, TrainConfig, overrides)


M = TypeVar("M", bound=BaseModel)


def read_config(path: Path | str, kind: type[M], overrides: tuple[str, ...] | list[str] = ()) -> M:
    """Read a TOML file of a configuration class and apply `section.key=value` overrides.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: one line with the file, the key, the value and the allowed values.
    """
    return check_values(path, read_values(path, overrides), kind)


def read_values(path: Path | str, overrides: tuple[str, ...] | list[str] = ()) -> dict[str, Any]:
    """Read a TOML file and apply overrides, as `read_config` does, but check nothing else."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no configuration at {path}; `swinir train --list` lists the recipes")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # of its syntax, numbers and bytes; of brackets without end
        raise ValueError(f"{path}: not valid TOML: {error}") from error
    for override in overrides:
        _apply(values, override)
    return values


def check_values(path: Path | str, values: dict[str, Any], kind: type[M]) -> M:
    """Return the configuration that values from a file describe; raises as `read_config`."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error, kind)}") from error


def varied(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration with changed values, such as `{"data.patch": 48}`, checked again.

    Raises:
        ValueError: one line with the key, the value and the allowed values.
    """
    values = config.model_dump()
    for key, value in changes.items():
        *sections, last = key.split(".")
        functools.reduce(operator.getitem, sections, values)[last] = value
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise ValueError(explain(error, TrainConfig)) from error


def _apply(values: dict[str, Any], override: str) -> None:
    """Set `a.b=value` in nested values; a value that is not TOML is taken as a string."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError(f"--set takes section.key=value, got {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ValueError(f"--set {override}: {section} is a value, not a section")
    values[last] = value


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """Describe the errors of a configuration in one line."""
    return "; ".join(_explain(e, kind) for e in error.errors())


def _explain(error: Any, kind: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), _known_keys(kind, error["loc"][:-1]), n=1)
        return f"unknown key {where}" + (f"; did you mean {near[0]}?" if near else "")
    if error["type"] == "missing":
        return f"missing key {where}"
    if error["type"] == "value_error":  # of a whole section
        return f"{where}: {message}" if where else message
    return f"{where}: {message}, got {error['input']!r}"


def _known_keys(model: type[BaseModel], section: tuple[Any, ...]) -> list[str]:
    for part in section:
        if isinstance(part, int):  # an entry of a list
            continue
        annotation = model.model_fields[str(part)].annotation
        annotation = next(iter(get_args(annotation)), annotation)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
