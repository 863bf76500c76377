"""`CopGenPipeline`: images in, images out.

B conditions, S samples of each, C latent channels, H and W pixels, f pixels per latent pixel along a side.
"""

from __future__ import annotations

import operator
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, get_args
from uuid import uuid4

import torch
from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin
from PIL import Image
from torch import Tensor, nn

from copgen_cli.errors import MismatchError, UnknownNameError, UsageError
from copgen_cli.modalities import Modality
from copgen_cli.model import (
    CopGenTransformer,
    HubOptions,
    ImageAutoencoder,
    OnStep,
    Pictures,
    SampleNoise,
    advice_on_calls,
    as_bytes,
    as_pil,
    draw_latents,
    made_for,
    modalities_of,
    reduction_of,
    sample_latents,
    scheduler_for,
)
from copgen_cli.pipeline.model_card import UNKNOWN_LICENSE, render_card
from copgen_cli.pipeline.sources import find_parts
from copgen_cli.records import Ignored, Solver
from copgen_cli.stages import move_folder, share_files

Output = Literal["pil", "pt", "latent"]


@dataclass(frozen=True, slots=True)
class CopGenOutput:
    """What one call of the pipeline made, by modality: B x S entries each, the samples of a condition side by side."""

    images: dict[str, list[Image.Image] | Tensor]
    """PIL images, a tensor (B S, 3, H, W) in [0, 1], or the latents, as `output_type` said."""
    latents: dict[str, Tensor] = field(repr=False)
    """(B S, C, H / f, W / f) scaled latents."""


PUBLISHED_CALLS = (50, Solver.REFERENCE)
"""Of the published sampler (arXiv:2504.08548)."""


class CopGenPipeline(DiffusionPipeline):
    """Generates any modalities of a place from any others, or from none.

    Args:
        transformer: the joint denoiser.
        vae: the autoencoder whose latents it was trained on.
        scheduler: of diffusers, for `solver="scheduler"`; None is DPM-Solver++ of order 2, set up for the schedule.
    """

    _optional_components = ["scheduler"]  # noqa: RUF012 - diffusers reads it as a plain class attribute
    transformer: CopGenTransformer
    vae: AutoencoderKL
    scheduler: SchedulerMixin

    def __init__(
        self, transformer: CopGenTransformer, vae: AutoencoderKL, scheduler: SchedulerMixin | None = None
    ) -> None:
        super().__init__()
        scheduler = scheduler or scheduler_for(transformer)
        self.register_modules(transformer=transformer, vae=vae, scheduler=scheduler)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """What the model knows, in its order."""
        return modalities_of(self.transformer)

    @property
    def image_size(self) -> int:
        """Side of the pictures in pixels."""
        return int(self.transformer.config.sample_size) * reduction_of(self.vae)

    @property
    def autoencoder(self) -> ImageAutoencoder:
        """The `vae` as functions of pixels and latents, in the arithmetic of its weights."""
        return ImageAutoencoder(self.vae, device=self.vae.device, dtype=None)

    @torch.no_grad()
    def __call__(
        self,
        generate: str | Sequence[str],
        condition: Mapping[str, Pictures] | Mapping[Modality, Pictures] | None = None,
        num_samples: int = 1,
        num_inference_steps: int | None = None,
        guidance_scale: float = 0.0,
        generator: torch.Generator | Sequence[torch.Generator] | int | None = None,
        output_type: Output = "pil",
        *,
        solver: Solver | str | None = None,
        seed: int | None = None,
        sample_ids: Sequence[str] | None = None,
        batch_size: int | None = None,
        ignored: Ignored | str = Ignored.MARGINALISE,
        callback: OnStep | None = None,
    ) -> CopGenOutput:
        """Draw samples.

        Args:
            generate: names of the modalities to draw.
            condition: what is given, by modality: one picture or B of them, the same B for all; see `Pictures`. Each is
                encoded once, and its latent drawn once per sample.
            num_samples: S, samples of each condition; how many in all where nothing is given.
            num_inference_steps: network calls; None is what the model is made for: of a student its own, else the
                published 50.
            guidance_scale: 0 is off; see `sample_latents`.
            generator: source of a seed; torch's global one where neither it nor `seed` is given. A list of B x S has a
                sample of each as that generator alone would give it; a number is a seed.
            output_type: "pil", "pt" (tensors in [0, 1]) or "latent" (nothing is decoded).
            solver: a name, or "scheduler" for the pipeline's own; None is of a student ddim, else the published one,
                not the command's.
            seed: with a sample's id and a modality's name, all that a sample's noise depends on. Schedulers that add
                noise at every step draw that from torch's global generator.
            sample_ids: B x S names, samples of a condition side by side; None numbers them.
            batch_size: samples at a time; None is all. It changes results by rounding only.
            ignored: how modalities that are neither generated nor given enter.
            callback: called with (call, calls, clean latents so far) after every network call of every batch.

        Returns:
            B x S pictures per generated modality: entry b * S + s is sample s of condition b.

        Raises:
            UsageError: a picture is of another form or size, numbers of pictures or ids do not agree, nothing is to be
                drawn, or a modality is both given and drawn.
            UnknownNameError: the model has no such modality, or there is no such solver or output type.
        """
        _check_names(output_type, ignored)
        wanted = self._positions([generate] if isinstance(generate, str) else generate)
        pictures: dict[str, Pictures] = {str(name): value for name, value in _by_name(condition).items()}
        steps, chosen = self._calls(num_inference_steps, solver)
        _check_call(wanted, pictures, steps=steps, batch_size=batch_size)
        given = self._as_bytes(pictures)
        samples = num_samples * _common_count(given, self.modalities)
        noise = _noise(seed, generator, sample_ids, samples, self.modalities)
        moments = {position: _encode(self.autoencoder, images, batch_size) for position, images in given.items()}
        options = {"solver": chosen, "guidance_scale": guidance_scale, "ignored": Ignored(ignored)}
        size = batch_size or samples
        latents, images = self._sample(wanted, moments, noise, size, steps, options, callback, output_type != "latent")
        return _output(latents, images, output_type)

    def _calls(self, steps: int | None, solver: Solver | str | None) -> tuple[int, Solver | str | SchedulerMixin]:
        """How many calls of which solver: what is asked for, else what the model is made for; a warning of others."""
        usual, own = made_for(self.transformer, PUBLISHED_CALLS)
        calls = usual if steps is None else steps
        chosen = self.scheduler if solver == "scheduler" else solver or own
        if advice := advice_on_calls(self.transformer, calls, chosen):
            warnings.warn(advice, stacklevel=4)  # of whoever called the pipeline, past torch's wrapper
        return calls, chosen

    def _as_bytes(self, pictures: Mapping[str, Pictures]) -> dict[int, Tensor]:
        """Position to (B, 3, H, W) uint8 of what is given."""
        side = self.image_size
        positions = self._positions(pictures)
        return {position: as_bytes(pictures[name], name=name, side=side) for name, position in positions.items()}

    def _sample(
        self,
        wanted: Mapping[str, int],
        moments: Mapping[int, Tensor],
        noise: SampleNoise,
        batch_size: int,
        steps: int,
        options: Mapping[str, Any],
        callback: OnStep | None,
        decoded: bool,
    ) -> tuple[dict[str, Tensor], dict[str, list[Tensor]]]:
        """Latents of all samples, by modality, and their pictures batch by batch, if they are `decoded`."""
        autoencoder, count = self.autoencoder, len(noise.sample_ids)
        latents: dict[str, list[Tensor]] = {name: [] for name in wanted}
        images: dict[str, list[Tensor]] = {name: [] for name in wanted}
        batches = torch.arange(count).split(batch_size)
        with self.progress_bar(total=steps * len(batches)) as bar:

            def tell(call: int, calls: int, clean: dict[int, Tensor]) -> None:
                bar.update()
                if callback is not None:
                    callback(call, calls, clean)

            for chosen in batches:
                own = noise.of(chosen.tolist())
                drawn = sample_latents(
                    self.transformer,
                    generate=list(wanted.values()),
                    condition={
                        position: _draw(autoencoder, own, position, values[chosen * len(values) // count])
                        for position, values in moments.items()
                    },
                    steps=steps,
                    noise_source=own,
                    callback=tell,
                    **options,
                )
                for name, position in wanted.items():
                    latents[name].append(drawn[position])
                    if decoded:
                        images[name].append(autoencoder.decode(drawn[position]))
        return {name: torch.cat(parts) for name, parts in latents.items()}, images

    def _positions(self, names: Sequence[str] | Mapping[str, Any]) -> dict[str, int]:
        known = [str(modality) for modality in self.modalities]
        for name in names:
            if name not in known:
                raise UnknownNameError("modality of this model", name, known=known)
        return {str(name): known.index(name) for name in names}

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        torch_dtype: torch.dtype | None = None,
        transformer: CopGenTransformer | None = None,
        vae: AutoencoderKL | None = None,
        scheduler: SchedulerMixin | None = None,
        num_heads: int | None = None,
        modalities: Sequence[str] | None = None,
        prediction_type: str | None = None,
        variant: str | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        **unsupported: Any,
    ) -> Self:
        """Load a pipeline, in eval mode. Nothing that lies in the source is executed or imported.

        Args:
            pretrained_model_name_or_path: a pipeline's folder in diffusers layout; a hub id, the published
                "mespinosami/COP-GEN-Beta" among them; a file of a transformer's weights, which comes with the
                published autoencoder; or "copgen-sim", the model in the package.
            torch_dtype: of the transformer's weights; None is float32. The autoencoder's stay in float32.
            transformer, vae, scheduler: parts to use instead of the source's.
            num_heads, modalities, prediction_type: of a source that does not tell; see `load_transformer`.
            variant: of the files of weights, such as "fp16"; they are of one, as `save_pretrained` writes them.
            revision, cache_dir, token, local_files_only, force_download: of a hub id, as everywhere in diffusers.
            unsupported: further options of diffusers, none of which applies here.

        Raises:
            UsageError: an option that is not supported.
            CopgenError: there is no such source, or the hub cannot be reached and has not been before.
            BrokenInputError: a file is cut short, of another format, or needs more than weights; or a part is missing.
            MismatchError: tensors and configuration do not fit.
        """
        _refuse_options("from_pretrained", unsupported)
        cache = None if cache_dir is None else os.fspath(cache_dir)
        hub = HubOptions(revision, cache, token, local_files_only, force_download)
        source = os.fspath(pretrained_model_name_or_path)
        parts = find_parts(source, needs_vae=vae is None, variant=variant, hub=hub)
        net = transformer or parts.load_transformer(num_heads, modalities, prediction_type)
        measured = [str(modality) for modality in _known_of(net) if not modality.spec.is_picture]
        if measured:
            raise UsageError(
                f"{source} generates {', '.join(measured)}, and this class pictures alone.",
                hint="`copgen sample` writes measurements; `load_transformer` and `sample_latents` draw their latents.",
            )
        if torch_dtype is not None:
            nn.Module.to(net, torch_dtype)  # the method of diffusers warns of modules to keep in float32; this has none
        pipeline = cls(net, vae or parts.load_vae(), scheduler or parts.load_scheduler(net))
        pipeline.register_to_config(_name_or_path=str(pretrained_model_name_or_path))
        return pipeline

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        license: str = UNKNOWN_LICENSE,
        notes: str = "",
        safe_serialization: bool = True,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        push_to_hub: bool = False,
        **hub: Any,
    ) -> None:
        """Write the pipeline in diffusers layout, as safetensors, with a model card; a new folder is whole or absent.

        In a folder that is there, files of these names are replaced, as everywhere in diffusers, but a `README.md`.

        Args:
            save_directory: the folder; what it holds besides is left alone.
            license, notes: for the card; see `render_card`.
            safe_serialization: as in diffusers, but never False: what would need code to be read is not written.
            variant, max_shard_size: of the files of weights, as in diffusers: "fp16" in their names; "5GB" at most.
            push_to_hub, hub: whether to publish it too, and the arguments of `push_to_hub`.

        Raises:
            UsageError: an option that is not supported.
        """
        if not safe_serialization:
            raise UsageError("Pickled weights are not written.", hint="Leave safe_serialization out.")
        if not push_to_hub:
            _refuse_options("save_pretrained", hub)
        target = Path(save_directory).expanduser().absolute()
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{uuid4().hex[:12]}.part")
        try:
            super().save_pretrained(beside, variant=variant, max_shard_size=max_shard_size)
            share_files(beside)
            (beside / "README.md").write_text(self.model_card(target.name, license=license, notes=notes), "utf-8")
            move_folder(beside, target, last="model_index.json", keep=["README.md"])
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        if push_to_hub:
            self.push_to_hub(**{"repo_id": target.name, "license": license, "notes": notes} | hub)

    def push_to_hub(
        self,
        repo_id: str,
        commit_message: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        *,
        license: str = UNKNOWN_LICENSE,
        notes: str = "",
    ) -> str:
        """Publish the pipeline on the hub, with its model card unless the repository has one.

        Args:
            repo_id: such as `you/my-model`; made if it is not there.
            commit_message, private, token, create_pr: as everywhere in diffusers.
            license, notes: for the card; see `render_card`.

        Returns:
            The address of the commit.
        """
        from huggingface_hub import HfApi

        hub = HfApi(token=token)
        name = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            super().save_pretrained(folder)
            if not hub.file_exists(name, "README.md"):
                Path(folder, "README.md").write_text(self.model_card(name, license=license, notes=notes), "utf-8")
            message = commit_message or "Upload CopGenPipeline"
            commit = hub.upload_folder(repo_id=name, folder_path=folder, commit_message=message, create_pr=create_pr)
        return commit.commit_url  # the text of `commit` itself is the folder's page in huggingface-hub 0.34

    def model_card(self, name: str, *, license: str = UNKNOWN_LICENSE, notes: str = "") -> str:
        """The text of its model card; see `render_card`."""
        return render_card(
            name=name,
            modalities=[str(modality) for modality in self.modalities],
            titles=[modality.spec.title for modality in self.modalities],
            transformer=self.transformer.config,
            parameters=sum(p.numel() for p in self.transformer.parameters()),
            autoencoder_parameters=sum(p.numel() for p in self.vae.parameters()),
            scaling_factor=self.autoencoder.scale_factor,
            fingerprint=self.autoencoder.fingerprint,
            side=self.image_size,
            license=license,
            notes=notes,
        )


def _refuse_options(method: str, options: Mapping[str, Any]) -> None:
    """Raises UsageError rather than leave an option of diffusers without effect, or end in a bare TypeError."""
    if options:
        raise UsageError(f"{method} does not support {', '.join(options)}.", hint="Leave it out.")


def _by_name(condition: Any) -> Mapping[Any, Pictures]:
    if not isinstance(condition, Mapping | None):
        raise UsageError(
            f"The condition is a {type(condition).__name__}.", hint='Name its modality: condition={"s1_rtc": picture}.'
        )
    return condition or {}


def _check_names(output_type: str, ignored: str) -> None:
    if output_type not in get_args(Output):
        raise UnknownNameError("output type", str(output_type), known=get_args(Output))
    if ignored not in list(Ignored):
        raise UnknownNameError("way with ignored modalities", str(ignored), known=list(Ignored))


def _check_call(
    wanted: Mapping[str, int], given: Mapping[str, Pictures], *, steps: int, batch_size: int | None
) -> None:
    if not wanted:
        raise UsageError("Nothing to generate.", hint="Name at least one modality.")
    both = [name for name in wanted if name in given]
    if both:
        raise UsageError(f"{', '.join(both)} is both given and to be generated.", hint="Drop it from one of them.")
    if steps < 1 or (batch_size is not None and batch_size < 1):
        raise UsageError("num_inference_steps or batch_size is less than 1.", hint="Give at least one.")


def _known_of(net: CopGenTransformer) -> tuple[Modality, ...]:
    """The modalities of a network; none where it does not name them, which is told when they are asked for."""
    try:
        return modalities_of(net)
    except MismatchError:
        return ()


def _common_count(given: Mapping[int, Tensor], modalities: Sequence[Modality]) -> int:
    """B: how many pictures each condition has; 1 where nothing is given."""
    counts = {len(images) for images in given.values()}
    if len(counts) > 1:
        told = ", ".join(f"{len(images)} for {modalities[position]}" for position, images in given.items())
        raise UsageError(f"The conditions differ in number: {told}.", hint="Give one picture of each place in each.")
    return counts.pop() if counts else 1


def _ids(given: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if count < 1:
        raise UsageError("num_samples is less than 1.", hint="Ask for at least one sample.")
    if given is not None and len(given) != count:
        raise UsageError(f"{len(given)} sample_ids for {count} samples.", hint="Give one per condition and sample.")
    return tuple(map(str, range(count) if given is None else given))


def _noise(
    seed: int | None,
    generator: torch.Generator | Sequence[torch.Generator] | int | None,
    sample_ids: Sequence[str] | None,
    count: int,
    modalities: Sequence[Modality],
) -> SampleNoise:
    """The noise of all samples: of one seed and an id each, or of a seed each."""
    names = tuple(map(str, modalities))
    if generator is None or isinstance(generator, torch.Generator | int):
        return SampleNoise(_seed(seed, generator), _ids(sample_ids, count), names)
    if len(generator) != count:
        raise UsageError(f"{len(generator)} generators for {count} samples.", hint="Give one per condition and sample.")
    seeds = tuple(_seed(seed, one) for one in generator)
    return SampleNoise(seeds, ("0",) * count if sample_ids is None else _ids(sample_ids, count), names)


def _seed(seed: int | None, generator: torch.Generator | int | None) -> int:
    if seed is not None and generator is not None:
        raise UsageError("Both seed and generator are given.", hint="Give one of them.")
    if seed is None and isinstance(generator, int):
        return operator.index(generator)
    if seed is not None:
        return operator.index(seed)
    assert not isinstance(generator, int)
    device = generator.device if generator is not None else "cpu"
    return int(torch.randint(2**63 - 1, (), generator=generator, device=device))


def _encode(autoencoder: ImageAutoencoder, images: Tensor, batch_size: int | None) -> Tensor:
    return torch.cat([autoencoder.moments(piece) for piece in images.split(batch_size or len(images))])


def _draw(autoencoder: ImageAutoencoder, noise: SampleNoise, position: int, moments: Tensor) -> Tensor:
    channels, height, width = moments.shape[1] // 2, *moments.shape[2:]
    drawn = noise.draw("condition", position, (channels, height, width)).to(moments.device)
    return draw_latents(moments, drawn, autoencoder.scale_factor)


def _output(latents: dict[str, Tensor], images: Mapping[str, list[Tensor]], output_type: Output) -> CopGenOutput:
    if output_type == "latent":
        return CopGenOutput(dict(latents), latents)
    together = {name: torch.cat(parts) for name, parts in images.items()}
    if output_type == "pt":
        return CopGenOutput(dict(together), latents)
    return CopGenOutput({name: as_pil(pictures) for name, pictures in together.items()}, latents)
