"""Every knob once, typed, with its unit and default, in one section per command."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PlainSerializer,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from copgen_cli.errors import UsageError
from copgen_cli.modalities import Modality
from copgen_cli.records import (
    SCHEDULE_STEPS,
    USUAL_CALLS,
    LearningRateDecay,
    Optimizer,
    PositionStart,
    Prediction,
    Solver,
    TimestepDraw,
)
from copgen_cli.settings.boxes import problem_of_box
from copgen_cli.settings.presets import Preset
from copgen_cli.storage import as_path, is_remote

PUBLIC_ENDPOINT = "https://huggingface.co"


def _read_path(value: Any, local: ValidatorFunctionWrapHandler) -> Path:
    """A path; the empty text, which would silently be the current folder, is refused."""
    if value == "":
        raise ValueError("a path is empty; write . for the current folder")
    if isinstance(value, str):
        value = as_path(value)
    path: Path = value if is_remote(value) else local(value).expanduser()
    return path


HomePath = Annotated[
    Path,
    WrapValidator(_read_path),
    PlainSerializer(str, return_type=str, when_used="json"),
]
"""A path in which `~` is the home folder, though no shell has read it; or one in an object store."""


class Section(BaseModel):
    """Common to all sections: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


def _check_cloud_range(value: tuple[float, float]) -> tuple[float, float]:
    low, high = value
    if not 0 <= low <= high <= 100:
        raise ValueError(f"cloud cover is a range MIN MAX in percent with 0 <= MIN <= MAX <= 100, not {low:g} {high:g}")
    return value


def _check_plain_name(value: str) -> str:
    if not value or value in {".", ".."} or any(c in value for c in "/\\\0") or not value.isprintable():
        raise ValueError(f"{value!r} can not be the name of a folder")
    return value


def _check_token(value: SecretStr) -> SecretStr:
    """Refuse what no header can hold before a library says so, and quotes it."""
    token = value.get_secret_value().strip()
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise ValueError("the token has characters that no token has; check --token or HF_TOKEN")
    return SecretStr(token)


CloudRange = Annotated[tuple[float, float], AfterValidator(_check_cloud_range)]
PlainName = Annotated[str, AfterValidator(_check_plain_name)]


class RegionSettings(Section):
    """What to fetch: a box, and which products in it."""

    bbox: tuple[float, float, float, float]
    """West, south, east, north in degrees; a cell belongs to it when its centre does. A box across the antimeridian has
    its west greater than its east."""
    start_date: date = date(2017, 1, 1)
    """First acquisition day; bounds are inclusive."""
    end_date: date = date(2025, 1, 1)
    """Last acquisition day, compared at midnight."""
    cloud_cover: CloudRange = (0.0, 10.0)
    """Least and most cloud in percent."""
    criteria: Literal["latest"] = "latest"
    """Which product of a cell is kept where there are several."""
    n_samples: PositiveInt | None = None
    """How many of the common cells to draw; all where None."""
    seed: int = 42
    """Seed of that draw."""

    @field_validator("bbox")
    @classmethod
    def _box(cls, value: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        if problem := problem_of_box(*value):
            raise ValueError(
                f"a bbox is WEST SOUTH EAST NORTH in degrees; {' '.join(f'{edge:g}' for edge in value)} {problem}"
            )
        return value

    @model_validator(mode="after")
    def _dates(self) -> RegionSettings:
        if self.start_date > self.end_date:
            raise ValueError(f"the start date {self.start_date} is after the end date {self.end_date}")
        return self


class DownloadSettings(Section):
    endpoint: str = PUBLIC_ENDPOINT
    """Where the Major TOM datasets are: https://, http:// or file://."""
    token: Annotated[SecretStr, AfterValidator(_check_token)] | None = None
    """Bearer token for the endpoint; never sent to another host."""
    sources: tuple[Modality, ...] = ()
    """Modalities to fetch; only cells that all of them have are kept. None named is what the family is made from."""
    workers: PositiveInt = 8
    """Requests under way at a time."""
    bands: str | None = None
    """Raw GeoTIFF bands to write as well: none, all, or a comma-separated list of columns; None is what the family
    needs, which of beta is none."""
    retries: NonNegativeInt = 8
    """Attempts after the first for one request, before its product is set aside."""
    timeout: PositiveFloat = 30.0
    """Seconds without a byte before a connection counts as stalled."""


class PrepareSettings(Section):
    train_ratio: Annotated[float, Field(ge=0, le=1)] = 0.95
    """Share of cells that go to the train split."""
    max_nodata: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Patches of measurements with a larger share of pixels without a value, in any modality, are left out."""
    max_clouds: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Likewise of pixels that the cloud mask does not call clear, where a family has it."""
    seed: int = 42
    """Seed of the split, which depends on it and the cell's name alone."""
    split_block: PositiveInt = 1
    """Side in cells of the blocks that go to one split together; 1 splits cell by cell. With larger ones, test cells
    beside a train cell are left out, so that the splits do not touch."""
    hold_out: HomePath | None = None
    """Text file with the cells of the test split, one a line; all others go to train, whatever ratio, seed and blocks
    say."""
    center_crop: bool = False
    """One patch from the middle of a cell instead of all."""
    workers: PositiveInt = os.cpu_count() or 1
    """Processes that cut."""


def _read_duration(value: Any) -> Any:
    """Seconds, or text such as 90s, 45m, 11.5h, 2d or the 1-23:30:00 of Slurm, as seconds."""
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    try:
        if ":" not in text:
            return float(text[:-1]) * units[text[-1]] if text[-1:] in units else float(text)
        days, _, clock = text.rpartition("-")
        hours, minutes, seconds = (int(part) for part in f"{clock}:0".split(":")[:3])
        return int(days or 0) * 86_400 + hours * 3600 + minutes * 60 + seconds
    except ValueError:
        raise ValueError(f"{value!r} is no duration; write 90s, 45m, 11.5h, 2d or 23:30:00") from None


Duration = Annotated[PositiveFloat, BeforeValidator(_read_duration)]
"""A time span in seconds."""


Size = Annotated[ByteSize, Field(gt=0)]
"""A number of bytes, or text such as 8GB or 512MiB."""


class SharedSettings(Section):
    """Of commands whose work several processes may share."""

    rendezvous_timeout: Duration = 600.0
    """How long a process that torchrun, srun or MPI started waits for the others, before it gives up."""


class EncodeSettings(SharedSettings):
    vae: str = "stabilityai/sd-vae-ft-ema"
    """Folder, file or hub id of the image autoencoder; frozen, never trained here."""
    vae_dir: HomePath | None = None
    """A folder with an autoencoder for each raster, called like it or as published; None is where `train-autoencoder`
    puts them."""
    batch_size: PositiveInt = 16
    """Images per forward pass."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic of the autoencoder; auto is bfloat16 on CUDA and float32 elsewhere. Moments are float32."""
    to: Literal["npy", "lmdb"] = "npy"
    """One file per patch and modality, or straight into the packed store."""


class ClusterSettings(Section):
    """Work on a Dask cluster instead of in processes of this machine alone."""

    scheduler: str | None = None
    """tcp://HOST:PORT or tls://HOST:PORT; local:N for N worker processes of this machine; or the scheduler file that
    dask-jobqueue and `dask scheduler` write. None works without Dask."""
    queued: PositiveInt = 2
    """Tasks handed to the scheduler per thread of its workers, so that none waits for the next."""
    lost_workers: NonNegativeInt = 3
    """How often work is handed out again after its worker was lost, beyond what the scheduler does by itself."""
    wait: Duration = 60.0
    """How long there may be no worker, or no answer from the scheduler, before a run gives up."""


class PackSettings(Section):
    input_type: Literal["npy", "png", "lmdb"] = "npy"
    """What is packed: moments, patches to encode on the way, or a database of the published workflow."""
    dtype: Literal["float32", "float16"] = "float32"
    """float16 halves the store; the error is far below the spread of a latent."""
    shards: PositiveInt | None = None
    """Files that the larger split is dealt to, the other to as many of that size as it needs; None is one file each."""
    shard_bytes: Size | None = None
    """Deal splits to files of at most so many bytes, such as 8GB or 512MiB, instead of a number."""
    workers: PositiveInt = os.cpu_count() or 1
    """Processes that fill shards."""

    @model_validator(mode="after")
    def _one_way_of_dealing(self) -> Self:
        if self.shards is not None and self.shard_bytes is not None:
            raise ValueError("shards and shard_bytes are two ways to say the same: give one of them")
        return self


class DataSettings(Section):
    """How packed stores are read."""

    cache_dir: HomePath | None = None
    """A folder on a disk of this machine that shards are copied to when they are first used; None reads them where they
    are."""
    cache_bytes: Size | None = None
    """The most that the copies take, such as 500GB; None is what the disk holds."""


Width = Annotated[PositiveInt, Field(multiple_of=8)]
"""Channels of a resolution of an autoencoder, whose norms have eight groups."""


class AutoencoderSettings(Section):
    """How `copgen train-autoencoder` makes a small autoencoder of its own."""

    steps: PositiveInt = 10_000
    """Updates; the last fifth of them lowers the learning rate, on whole patches."""
    batch_size: PositiveInt = 8
    """Crops per update, of pictures 128 px; of whole patches as many as have no more pixels, at least one."""
    channels: Annotated[tuple[Width, ...], Field(min_length=1)] = (16, 32, 64, 128)
    """Width of each resolution; every further one halves the side of the latents. Multiples of 8. An autoencoder of a
    raster has as many of them as the side of its patches can be halved."""
    raster_latent_channels: PositiveInt = 8
    """Channels of the latents of rasters and classes; pictures have 4."""
    raster_crop: PositiveInt | None = None
    """Side in pixels of the crops of rasters and classes; None is 128, or whole patches where these are smaller."""
    lr: PositiveFloat = 1e-3
    """Learning rate after warm-up."""
    init_from: str | None = None
    """Start from the weights of this autoencoder, a folder or hub id of the same architecture."""
    frozen_encoder: bool = False
    """Train the decoder alone: latents stay what they are, with all that was encoded or learned on them."""
    recoloured: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of crops with channels exchanged and another saturation, so that colours are learned at all."""
    colour_weight: NonNegativeFloat = 2.0
    """Weight of the mean absolute error of averages over what one latent pixel covers."""
    linear_weight: NonNegativeFloat = 2.0
    """Weight of what a linear function of the latents leaves of these averages: it has the encoder tell colours."""
    structure_weight: NonNegativeFloat = 0.2
    """Weight of the structural loss beside the mean absolute error."""
    spectrum_weight: NonNegativeFloat = 0.0
    """Of pictures: weight of the difference of power spectra, which tells blur and paleness; 0 leaves it out."""
    adversarial_weight: NonNegativeFloat = 0.0
    """Of pictures: weight of an adversary that learns to tell decoded pictures from true ones, as the length of its
    gradient at the decoder's last layer over that of all other losses; 0 is none."""
    adversarial_after: NonNegativeInt = 0
    """Updates at the beginning in which the adversary learns alone, so that it judges before a decoder heeds it."""
    kl_weight: NonNegativeFloat = 1e-4
    """Weight of the divergence of a latent from a standard normal."""
    seed: NonNegativeInt = 0
    """Of first weights, and of the order of patches."""
    save_every: PositiveInt = 250
    """Updates between checkpoints."""
    max_time: Duration | None = None
    """Save and stop after so long."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1` or `mps`; `auto` takes a GPU where there is one."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic; auto is bfloat16 where the device multiplies it natively."""

    @model_validator(mode="after")
    def _a_frozen_encoder_comes_from_somewhere(self) -> Self:
        if self.frozen_encoder and self.init_from is None:
            raise ValueError("frozen_encoder needs init_from, the autoencoder whose encoder stays as it is")
        return self


class NetworkSettings(Section):
    """Sizes of a new network; modalities and latents are those of the data."""

    patch_size: PositiveInt = 2
    """Side of a patch in latent pixels; half of it means four times the tokens."""
    hidden_size: PositiveInt = 1024
    """Width."""
    depth: PositiveInt = 20
    """Input and output blocks together, without the middle one; even."""
    num_heads: PositiveInt = 16
    """Attention heads; they divide the width."""
    mlp_ratio: PositiveFloat = 4.0
    """Hidden width of a block's MLP over the width."""
    qkv_bias: bool = False
    """Whether the projection to queries, keys and values has a bias."""
    mlp_time_embed: bool = False
    """Whether each modality's timestep goes through an MLP of its own."""
    prediction_type: Prediction = Prediction.NOISE
    """What it learns to tell: the noise, or the velocity, which shows clean latents at any step (arXiv:2202.00512)."""
    rescale_betas_zero_snr: bool = False
    """End the noise schedule in noise alone, as sampling starts, instead of 7 % of the signal (arXiv:2305.08891);
    velocities alone can be told there."""

    @model_validator(mode="after")
    def _velocities_alone_are_told_in_noise(self) -> Self:
        if self.rescale_betas_zero_snr and self.prediction_type is not Prediction.VELOCITY:
            raise ValueError("rescale_betas_zero_snr needs prediction_type = v_prediction")
        return self


class DistillSettings(Section):
    """What `copgen distill` makes a student of, which samples in a few network calls; it trains as `train` says."""

    teacher: str | None = None
    """The trained model, folder or hub id; its student starts with its weights."""
    calls: Annotated[int, Field(ge=1, le=8)] = 4
    """Network calls that the student needs for a sample."""
    teacher_calls: PositiveInt = 4
    """Calls of the teacher for each of the student's."""
    guidance_scale: NonNegativeFloat = 0.0
    """Guidance of the teacher that the student takes over at no further call (arXiv:2210.03142); 0 is off."""


class TrainSettings(SharedSettings):
    """How `copgen train` trains; the defaults are those of the published run where it tells."""

    preset: Preset = Preset.SMALL
    """Which set of values lies between these defaults and what you give."""
    model: NetworkSettings = NetworkSettings()
    """Size and shape of the network, where no preset says it."""
    init_from: str | None = None
    """Start from these weights: anything that holds a transformer, also one of fewer modalities."""
    modalities: tuple[Modality, ...] | None = None
    """Which of the data's modalities to train on, in the model's order; None is all."""

    positions: PositionStart = PositionStart.NORMAL
    """How the position embeddings of new modalities start; sine is alike in all of them (arXiv:2111.06377)."""

    steps: PositiveInt = 500_000
    """Steps of the whole run."""
    batch_size: PositiveInt = 512
    """Samples per step, over all processes."""
    micro_batch: PositiveInt | None = None
    """Samples at a time in one process; gradients of the rest accumulate. None finds what fits the device."""
    optimizer: Optimizer = Optimizer.ADAMW
    """What turns gradients into new weights; Muon's updates are as large as AdamW's, so lr means the same for both."""
    lr: PositiveFloat = 2e-4
    """Learning rate after warm-up."""
    warmup: NonNegativeInt = 5_000
    """Steps over which the learning rate rises from 0."""
    decay: LearningRateDecay = LearningRateDecay.CONSTANT
    """What follows the warm-up."""
    betas: tuple[float, float] = (0.99, 0.99)
    """Decay rates of AdamW's two moment estimates (arXiv:1711.05101)."""
    eps: PositiveFloat = 1e-8
    """Term of AdamW's denominator."""
    weight_decay: NonNegativeFloat = 0.03
    """Decoupled decay of all parameters, times the learning rate."""
    clip: PositiveFloat | None = None
    """Largest norm of the gradient; None does not clip."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    """Share of the averaged weights that a step keeps."""
    ema_warmup: bool = False
    """Keep at most (1 + k) / (10 + k) at step k, so that a short run's average forgets its start."""
    timesteps: TimestepDraw = TimestepDraw.UNIFORM
    """How noise levels are drawn; logit-normal is arXiv:2403.03206; roles needs min_snr_gamma."""
    timestep_shift: PositiveFloat = 1.0
    """Above 1, noisier steps are drawn more often: t becomes s t / (1 + (s - 1) t) (arXiv:2403.03206, eq. 23)."""
    one_given: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of samples, among roles, that are sure to have exactly one modality given."""
    given_odds: dict[Modality, PositiveFloat] = Field(default_factory=dict)
    """Relative odds of each modality to be the single one given, among one_given; 1 for those not named."""
    min_snr_gamma: PositiveFloat | None = None
    """Weigh noise levels by min-SNR (arXiv:2303.09556), 5 in the paper, also for velocities; None weighs all alike."""
    pure_last_step: bool = False
    """Show noise alone at the last step, as sampling starts, instead of 7 % of the signal (arXiv:2305.08891)."""
    stop_after_skipped: PositiveInt = 20
    """Steps in a row without a finite loss and gradient after which the run gives up."""
    seed: NonNegativeInt = 0
    """Seed of initial weights, data order and everything drawn."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    gpus: PositiveInt | None = None
    """GPUs of this machine to train on."""
    num_processes: PositiveInt | None = None
    """Processes to train with; one per GPU, or on the CPU."""
    accelerate_config: HomePath | None = None
    """Configuration file of accelerate, as `accelerate config` writes it."""
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = "auto"
    """Arithmetic of the network; auto is bf16 on CUDA that has it and no elsewhere. Weights are float32."""
    tf32: bool = True
    """Let CUDA round the inputs of float32 products to 10 bits."""
    compile: bool = False
    """Compile the network; the first step then takes minutes."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, but slower."""
    workers: NonNegativeInt | None = None
    """Loader processes per training process; None is 4 beside a GPU and none on the CPU."""

    workdir: HomePath | None = None
    """Folder of the run; None is named by region and preset in `runs_dir`."""
    resume: str = "auto"
    """auto continues from the newest whole checkpoint, none refuses to, a path names one."""
    save_every: PositiveInt = 1_000
    """Steps between checkpoints; one is also written when the run stops."""
    keep_last: PositiveInt = 3
    """Checkpoints kept."""
    milestone_every: PositiveInt | None = None
    """Checkpoints at multiples of this are kept for ever."""
    validate_every: NonNegativeInt = 5_000
    """Steps between validations on the test split; 0 is never."""
    validate_samples: PositiveInt = 256
    """Samples of the test split, and of the train split, that a validation looks at, at most."""
    preview_every: NonNegativeInt = 5_000
    """Steps between previews; 0 is never."""
    preview_samples: PositiveInt = 4
    """Places that a preview shows."""
    preview_steps: PositiveInt = 50
    """Network calls per preview."""
    log_every: PositiveInt = 10
    """Steps between lines of metrics."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ("tensorboard",)
    """Where metrics go beside metrics.jsonl, through accelerate; those not installed are left out."""
    max_time: Duration | None = None
    """Save and stop after this long, such as 45m, 11.5h or 23:30:00."""
    vae: str | None = None
    """The autoencoder that made the latents, for previews and the finished model; None is the one the store names."""

    @model_validator(mode="after")
    def _roles_fit(self) -> Self:
        if self.timesteps is TimestepDraw.ROLES and self.min_snr_gamma is None and self.student is None:
            raise ValueError("timesteps = roles needs min_snr_gamma, which gives modalities without noise no weight")
        if self.one_given and self.timesteps is not TimestepDraw.ROLES:
            raise ValueError("one_given is for timesteps = roles: no other draw gives a modality without noise")
        if self.given_odds and not self.one_given:
            raise ValueError("given_odds divide the share of one_given, which is 0")
        if self.pure_last_step and self.model.rescale_betas_zero_snr:
            raise ValueError("pure_last_step is for a schedule that does not end in noise by itself")
        return self

    @field_validator("betas")
    @classmethod
    def _betas(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in value):
            raise ValueError(f"betas lie in [0, 1), not {value[0]:g} and {value[1]:g}")
        return value

    @property
    def student(self) -> DistillSettings | None:
        """What the run makes a student of, which learns to repeat a teacher (arXiv:2202.00512); None is no student."""
        return None


class StudentSettings(TrainSettings):
    """What a student trains by: `train` of the settings, but its start and steps are those that `distill` gives it."""

    distill: DistillSettings

    @classmethod
    def of(cls, train: TrainSettings, distill: DistillSettings) -> Self:
        """The student's share of both.

        Raises:
            UsageError: no teacher is named.
        """
        if distill.teacher is None:
            raise UsageError(
                "A student needs a teacher, and none is named.",
                hint="Give --teacher FOLDER, or set teacher under [distill].",
            )
        kept = train.model_dump(exclude_unset=True, exclude={"timestep_shift", "pure_last_step"})
        return cls(**kept | {"init_from": distill.teacher, "timesteps": TimestepDraw.ROLES, "distill": distill})

    @property
    def student(self) -> DistillSettings:
        return self.distill


class SampleSettings(SharedSettings):
    model: str | None = None
    """Folder or hub id; None is the newest model trained on the region, or else the one that comes with the package."""
    n_samples: PositiveInt = 1
    """Samples per condition."""
    steps: PositiveInt | None = None
    """Network calls per sample; None is what the model is made for: those of a student, else 15."""
    solver: Solver | None = None
    """None is likewise ddim of a student, else dpm++2m; the published setting is reference with 50 steps."""
    guidance_scale: NonNegativeFloat = 0.0
    """0 is off."""
    seed: NonNegativeInt = 0
    """Of the noise that samples start from."""
    save_as: Literal["grid", "pngs", "geotiff"] = "grid"
    """What pictures are written as: pages of a grid, PNGs, or GeoTIFFs."""
    batch_size: PositiveInt | None = None
    """Samples at a time; None chooses by the memory of the device."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1` or `mps`; `auto` takes a GPU where there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Arithmetic; auto is bfloat16 on CUDA and, for the transformer alone, on a CPU that multiplies it
    natively; else float32."""
    limit: PositiveInt | None = None
    """Records to use of the input; all where None."""
    gpus: PositiveInt | None = None
    """GPUs of this machine that share the work; None is one, if there is any."""
    num_processes: PositiveInt | None = None
    """Processes that share the work; None is one for each of `gpus`."""
    accelerate_config: HomePath | None = None
    """Configuration file of accelerate for the launch."""

    @model_validator(mode="after")
    def _solver_takes_so_many_steps(self) -> Self:
        steps, solver = self.calls()
        if solver is not Solver.REFERENCE and steps >= SCHEDULE_STEPS:
            raise ValueError(
                f"solver {solver} takes at most {SCHEDULE_STEPS - 1} steps, not {steps}; reference takes any"
            )
        return self

    def calls(self, made_for: tuple[int, Solver] = USUAL_CALLS) -> tuple[int, Solver]:
        """Steps and solver: those that are asked for, else those that the model is made for."""
        return self.steps or made_for[0], self.solver or made_for[1]


class SceneSettings(Section):
    """How `copgen scene` goes over an area; what is drawn is drawn as `sample` says."""

    overlap: NonNegativeInt = 64
    """Pixels by which neighbouring windows overlap; 64 of 256 is the least without seams (benchmarks/seams.py)."""
    block: Annotated[int, Field(ge=128)] = 4096
    """The most pixels along a side of the blocks that are drawn one after the other: memory grows with it."""


class EvaluateSettings(Section):
    """What is drawn is drawn as `sample` says: model, steps, solver, guidance, seed, batch size, device and dtype."""

    metrics: str | None = None
    """Comma-separated; None is all that can be had without more weights or several times as many samples."""
    pairs: str | None = None
    """What is translated to what: groups, and pairs such as dem+s1_rtc:s2_l2a. None is single,unconditional of
    pictures, and rest of measurements."""
    n_samples: PositiveInt = 2
    """Samples of each place."""
    limit: PositiveInt | None = None
    """Places, from as many cells as there are; None is all of two folders, and 16 of a region that a model is judged
    on."""
    features: str | None = None
    """Network that sets are compared by: an autoencoder or inception; None is the autoencoder in the package."""
    translations: Annotated[int, Field(ge=2, multiple_of=2)] = 4
    """Length of the cycles, where these are asked for; every second one returns."""
    resamples: Annotated[int, Field(ge=20)] = 500
    """Of the bootstrap that intervals come from."""


class StudioSettings(Section):
    """The web page; what is drawn is drawn as `sample` says, where the page does not say otherwise."""

    host: PlainName = "127.0.0.1"
    """Address to listen on; any but this machine's own needs the token that is printed at the start."""
    port: Annotated[int, Field(ge=0, le=65535)] = 7860
    """0 takes a free one."""
    folder: HomePath = Path("outputs/studio")
    """Where results and uploads lie."""
    queue: PositiveInt = 64
    """Requests that may wait; more are told to come back."""
    results: PositiveInt = 100
    """Results kept on disk; the oldest go first."""
    uploads: PositiveInt = 200
    """Uploaded files kept on disk; the oldest go first."""
    upload_bytes: PositiveInt = 64 << 20
    """Largest file that is taken."""
    most_samples: PositiveInt = 16
    """Samples of one request."""
    most_steps: PositiveInt = 200
    """Network calls per sample of one request."""
    most_windows: PositiveInt = 400
    """Windows of one map, counted for each sample; a cell has 36 of them."""
