"""Training configurations: frozen, typed, read from TOML, checked before any work starts."""

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from swinir.network import NetworkConfig
from swinir.tasks import TASKS, get_task

Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Section):
    """Training images and how patches are cut from them.

    `train` is a folder of ground-truth images, searched with its subfolders; low-quality images are made by
    MATLAB's bicubic. `holdout` images, evenly spaced in the sorted list, are kept for validation.
    """

    train: Path
    patch: Positive = 64  # side of the low-quality patch, pixels
    batch: Positive = 32
    holdout: NotNegative = 0


class LossConfig(_Section):
    """Pixel loss: L1 (classical and lightweight SR) or Charbonnier (denoising and JPEG), Section 3.1, Eq. 7 and 8."""

    name: Literal["l1", "charbonnier"] = "l1"
    epsilon: PositiveFloat = 1e-9  # under Charbonnier's root, as in the published recipe


class OptimizerConfig(_Section):
    """Adam."""

    lr: PositiveFloat = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: PositiveFloat | None = None


class ScheduleConfig(_Section):
    """Learning rate over the iterations: linear warm-up, then halving at milestones or a cosine down to `final`."""

    iterations: Positive
    warmup: NotNegative = 0
    kind: Literal["multistep", "cosine"] = "multistep"
    milestones: tuple[int, ...] = ()
    gamma: Share = 0.5
    final: Share = 0.0  # cosine: last learning rate as a share of the first


class TrainConfig(_Section):
    """One training run. Unknown keys are refused; `network` overrides fields of the task's released network."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]+$")]
    task: str
    scale: Positive = 1
    data: DataConfig
    schedule: ScheduleConfig
    network: dict[str, Any] = {}
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    seed: NotNegative = 0
    save_every: Positive = 1000
    log_every: Positive = 100
    validate_every: Positive = 1000

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        task = get_task(self.task)
        if not task.crop_scale:
            supported = ", ".join(row.name for row in TASKS.values() if row.crop_scale)
            raise ValueError(f"training is available for {supported}, got task {self.task!r}")
        self.network_config()
        return self

    def network_config(self) -> NetworkConfig:
        """The network to train: the task's released one, with this configuration's overrides."""
        base = get_task(self.task).network_for(self.scale, img_size=self.data.patch).to_dict()
        for key, value in self.network.items():
            if key in base and not _same_type(value, base[key]):
                raise ValueError(f"network.{key} must be of the type of {base[key]!r}, got {value!r}")
        return NetworkConfig.from_dict(base | self.network)


def _same_type(value: Any, example: Any) -> bool:
    if isinstance(example, list):
        return isinstance(value, list | tuple) and all(type(item) is int for item in value)
    return type(value) is type(example) or (type(example) is float and type(value) is int)


def load_config(path: Path | str, overrides: tuple[str, ...] | list[str] = ()) -> TrainConfig:
    """Read a TOML file and apply `section.key=value` overrides.

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
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path}: {'; '.join(_explain(e) for e in error.errors())}") from error


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


def _explain(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), _known_keys(error["loc"][:-1]), n=1)
        return f"unknown key {where}" + (f"; did you mean {near[0]}?" if near else "")
    if error["type"] == "missing":
        return f"missing key {where}"
    return f"{where}: {message}, got {error['input']!r}" if where else message


def _known_keys(section: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = TrainConfig
    for part in section:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
