"""Training configurations: frozen, typed, read from TOML, checked before any work starts."""

import difflib
import functools
import operator
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from swinir.environment import shipped_folder
from swinir.evaluation.evaluate import Protocol
from swinir.models.swinir import NetworkConfig
from swinir.tasks import TaskSpec, get_task

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Betas = tuple[Share, Share]
Quality = Annotated[int, Field(ge=1, le=100)]
REST_LR = 1e-3  # Adam's beside Muon


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str | Path) else value


Folders = Annotated[tuple[Path, ...], BeforeValidator(_listed)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class Section(BaseModel):
    """Part of a configuration: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(Section):
    """Training and validation images, and how patches are cut from them.

    Attributes:
        train: one folder of ground-truth images, or several, each searched with its subfolders; "@scikit-image"
            stands for the photographs that scikit-image brings along.
        train_lq: as many folders of low-quality partners, of the same relative names or with x{scale} appended;
            without them low-quality images are made as `[degradation]` says.
        images: train on only so many of them: whole folders in their order, then images evenly spaced in one.
        draw: whether large images are met more often ("pixels": every place is as likely as any other) or all
            equally often ("images").
        patch: side of the low-quality patch, pixels.
        batch: patches of one optimizer step, over all processes and accumulated parts.
        holdout: training images kept for validation instead, evenly spaced in the sorted list.
        validate_gt: a folder of ground-truth images to validate on, instead of `holdout`.
        validate_lq: their low-quality partners, as the tester pairs them.
        cache: a folder for decoded images, mapped into memory as needed; without it they are all kept there.
        workers: processes that prepare batches; 0 does it between the steps. Unset: up to 8 beside a GPU, else 0.
    """

    train: Folders
    train_lq: Folders = ()
    images: Positive | None = None
    draw: Literal["pixels", "images"] = "pixels"
    patch: Positive = 64
    batch: Positive = 32
    holdout: NotNegative = 0
    validate_gt: Path | None = None
    validate_lq: Path | None = None
    cache: Path | None = None
    workers: NotNegative | None = None


class DegradationConfig(Section):
    """How low-quality patches are made. What is not set follows from the task and its level.

    Attributes:
        kind: MATLAB's bicubic of the whole image, Gaussian noise, JPEG, BSRGAN's or Real-ESRGAN's chain.
        noise: standard deviation in units of 1/255, or the range that it is drawn from.
        quality: JPEG quality, or the range that it is drawn from.
        margin: pixels that a patch to be compressed is larger by, each way, before it is cut to size.
        unaligned: share of compressed patches cut anywhere within the margin, so that the grid of JPEG blocks
            does not start at the patch's corner.
        options: of BSRGAN's or Real-ESRGAN's chain, by the names of `BSRGANOptions` and `RealESRGANOptions`.
    """

    kind: Literal["bicubic", "noise", "jpeg", "bsrgan", "bsrgan_plus", "realesrgan"] | None = None
    noise: Weight | tuple[Weight, Weight] | None = None
    quality: Quality | tuple[Quality, Quality] | None = None
    margin: NotNegative = 8
    unaligned: Share = 0.5
    options: dict[str, Any] = {}


class InitConfig(Section):
    """Weights to start from.

    Attributes:
        weights: a checkpoint's path or its name in the zoo.
        allow_mismatch: beginnings of layer names that may be missing, left over or of another shape; they keep
            their random initial weights.
        adapt_scale: start the convolution before "pixelshuffledirect"'s shuffle from one of another scale: each
            subpixel takes the weights of the nearest one. A fresh one takes thousands of steps to get there.
        discriminator: weights that a discriminator starts from, as a run with one writes them.
    """

    weights: str | None = None
    allow_mismatch: Names = ()
    adapt_scale: bool = False
    discriminator: Path | None = None


class PerceptualConfig(Section):
    """Distance between VGG19's features (Section 3.1; Wang et al., ESRGAN), layers and weights as published.

    `weights` is a file with VGG19's weights; without one torchvision fetches them.
    """

    weight: Weight = 1.0
    layers: tuple[NotNegative, ...] = (2, 7, 16, 25, 34)
    layer_weights: tuple[Weight, ...] = (0.1, 0.1, 1.0, 1.0, 1.0)
    weights: Path | None = None


class AdversarialConfig(Section):
    """Loss of a U-Net discriminator with spectral normalisation, and the discriminator's own Adam."""

    objective: Literal["vanilla", "lsgan", "relativistic"] = "vanilla"
    weight: Weight = 0.1
    num_feat: Positive = 64
    lr: PositiveFloat = 1e-4
    betas: Betas = (0.9, 0.999)


class LossConfig(Section):
    """Pixel loss: L1 (super-resolution) or Charbonnier (denoising and JPEG), Section 3.1, Eq. 7 and 8; or L2."""

    name: Literal["l1", "charbonnier", "l2"] = "l1"
    epsilon: PositiveFloat = 1e-9  # under Charbonnier's root, as in the published recipe; the paper's 1e-3 is its root
    weight: Weight = 1.0
    perceptual: PerceptualConfig | None = None
    adversarial: AdversarialConfig | None = None


class OptimizerConfig(Section):
    """Adam, as published, or Muon for the weights of linear layers with Adam for all other parameters.

    Attributes:
        lr: of Adam, or of Muon, which scales it so that its updates are as large as AdamW's are.
        rest_lr: of Adam beside Muon; 1e-3 by default. Both learning rates follow the schedule.
        betas: of Adam.
        weight_decay: Adam's L2 penalty on all parameters, or Muon's decoupled decay of the linear layers alone.
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
    """Learning rate over the iterations: linear warm-up, then halving at milestones or a cosine down to `final`."""

    iterations: Positive
    warmup: NotNegative = 0
    kind: Literal["multistep", "cosine"] = "multistep"
    milestones: tuple[int, ...] = ()
    gamma: Share = 0.5
    final: Share = 0.0  # cosine: last learning rate as a share of the first


class TrainConfig(Section):
    """One training run. Unknown keys are refused.

    Attributes:
        name: of the run, its folder and the weights it ends with.
        task: one of the paper's seven; its row decides the network, the degradation and the metrics.
        scale, noise, jpeg: the level of the expert, as the tester takes it.
        network: overrides fields of the task's released network; `name = "rcan"` trains RCAN instead.
        accumulate: parts that a batch is run in, one after the other, to need less memory.
        precision: of products and convolutions in the network; parameters, residuals and losses are float32,
            or float64 for "fp64".
        tensorboard: also write TensorBoard's event files.
        save_every, log_every, validate_every: iterations between states, rows and validations.
        keep: states kept beside the best one.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]+$")]
    task: str
    scale: Positive = 1
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
        data, perceptual = self.data, self.loss.perceptual
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
        if perceptual and len(perceptual.layers) != len(perceptual.layer_weights):
            raise ValueError(
                f"loss.perceptual needs one weight for each layer, got {len(perceptual.layers)} layers "
                f"and {len(perceptual.layer_weights)} weights"
            )
        if perceptual and self.task_row.gray:
            raise ValueError("loss.perceptual needs colour images, the task is grey; leave it out")
        self._check_optimizer()
        keeps_size = ("noise", "jpeg")
        if not data.train_lq and (self.degradation_kind in keeps_size) != (self.scale == 1):
            raise ValueError(f"degradation {self.degradation_kind!r} does not go with scale {self.scale}")
        return self

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
        """How low-quality patches are made."""
        return self.degradation.kind or self.task_row.training

    @property
    def protocol(self) -> Protocol:
        """How the tester would evaluate this expert."""
        return Protocol(self.task_row, scale=self.scale, noise=self.noise, jpeg=self.jpeg)

    @property
    def network_name(self) -> str:
        """Which network: "swinir" or "rcan"."""
        return str(self.network.get("name", "swinir"))

    def network_config(self) -> NetworkConfig:
        """The network to train: the task's released one, with this configuration's overrides."""
        base = self.task_row.network_for(self.scale).to_dict() | {"img_size": self.data.patch}
        if self.network_name == "rcan":
            return NetworkConfig.from_dict(base)  # the task, its channels and scale; RCAN's own options are its own
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
    """Read a training's TOML file and apply `section.key=value` overrides; as `read_config`."""
    return read_config(path, TrainConfig, overrides)


M = TypeVar("M", bound=BaseModel)


def standard_config(study: str, scale: str) -> Path:
    """A configuration that comes with the package: `configs/STUDY/SCALE.toml` inside it, or in the source tree.

    Raises:
        ValueError: for a scale that the study does not have, with those that it has.
        FileNotFoundError: when the study's folder is in neither place.
    """
    folder = shipped_folder(f"configs/{study}")
    if folder is None:
        raise FileNotFoundError(f"the package came without configs/{study}; reinstall it, or name a file with --config")
    path = folder / f"{scale}.toml"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in folder.glob("*.toml")))
        raise ValueError(f"--scale must be one of {known}, got {scale!r}; or name a file with --config")
    return path


def read_config(path: Path | str, kind: type[M], overrides: tuple[str, ...] | list[str] = ()) -> M:
    """Read a TOML file of any kind of configuration and apply `section.key=value` overrides.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: one line naming the file, the key, the value seen and what is allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no configuration at {path}; the released recipes are in configs/")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid TOML: {error}") from error
    for override in overrides:
        _apply(values, override)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path}: {explain(error, kind)}") from error


def varied(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """The configuration with other values at some keys, `{"data.patch": 48}`, checked again.

    Raises:
        ValueError: one line naming the key, the value seen and what is allowed.
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
    """Set `a.b=value` in nested values; the value is TOML, or else text as it stands."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError(f"--set takes section.key=value, got {override!r}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, last = key.split(".")
    for section in sections:
        values = values.setdefault(section, {})
        if not isinstance(values, dict):
            raise ValueError(f"--set {override}: {section} is a value, not a section")
    values[last] = value


def explain(error: ValidationError, kind: type[BaseModel]) -> str:
    """What contradicts a kind of configuration, in one line."""
    return "; ".join(_explain(e, kind) for e in error.errors())


def _explain(error: Any, kind: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), _known_keys(kind, error["loc"][:-1]), n=1)
        return f"unknown key {where}" + (f"; did you mean {near[0]}?" if near else "")
    if error["type"] == "missing":
        return f"missing key {where}"
    return f"{where}: {message}, got {error['input']!r}" if where else message


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
