"""How a picture was made: what stands in its metadata, and how to read it back and make it again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from copgen_cli import __version__
from copgen_cli.errors import BrokenInputError, MismatchError
from copgen_cli.inputs import InputFile
from copgen_cli.modalities import Modality, Role
from copgen_cli.rasters import read_tags
from copgen_cli.records import Ignored, SampleRequest, Solver
from copgen_cli.storage import readable

KEY = "copgen"
"""Keyword of the PNG text chunk that holds all of it as JSON."""
FORMAT = 1
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How a TIFF begins, in either order of bytes, large or not."""
MOST_THREADS = 512
"""That a picture may ask for; torch crashes when it is given very many."""

_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>
</rdf:RDF></x:xmpmeta>
<?xpacket end="r"?>"""  # how the press says that a picture was made by a model; image software shows it


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that determines the pixels, besides what is in the inputs."""

    model: str
    """Folder, file, hub id or built-in name, as it was given."""
    model_sha256: str
    """Of the weights of transformer and autoencoder."""
    request: SampleRequest
    source: Mapping[str, Any]
    """Where the conditions come from; see `inputs.open_source`."""
    resolution: int
    """Side in pixels of what is given and shown."""
    ignored: Ignored = Ignored.MARGINALISE
    decoder: str = "autoencoder"
    """What made pixels of latents: the model's autoencoder, or the id of a preview decoder."""
    dtype: str = "float32"
    autoencoder_dtype: str | None = None
    """Of the autoencoder, where it is not `dtype`."""
    device: str = "cpu"
    """Kind of device; another one rounds otherwise."""
    compiled: bool = False
    threads: int = 1
    """Of the CPU; another number of them may round otherwise too. 1 on other devices."""

    def as_dict(self) -> dict[str, Any]:
        request = self.request
        of_autoencoder = {"autoencoder_dtype": self.autoencoder_dtype} if self.autoencoder_dtype else {}
        return {
            "model": {"id": self.model, "sha256": self.model_sha256},
            "generate": [str(m) for m in request.generated],
            "condition": [str(m) for m in request.conditions],
            "source": dict(self.source),
            "resolution": self.resolution,
            "n_samples": request.n_samples,
            "seed": request.seed,
            "steps": request.steps,
            "solver": str(request.solver),
            "guidance_scale": request.guidance_scale,
            "ignored": str(self.ignored),
            "decoder": self.decoder,
            "dtype": self.dtype,
            **of_autoencoder,
            "device": self.device,
            "compiled": self.compiled,
            "threads": self.threads,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """Raises KeyError, TypeError or ValueError where the values are not those of a recipe."""
        roles = {Modality(name): Role.GENERATE for name in values["generate"]}
        roles |= {Modality(name): Role.CONDITION for name in values["condition"]}
        request = SampleRequest(
            roles=roles,
            n_samples=int(values["n_samples"]),
            steps=int(values["steps"]),
            solver=Solver(values["solver"]),
            guidance_scale=float(values["guidance_scale"]),
            seed=int(values["seed"]),
        )
        threads = int(values["threads"])
        if not 1 <= threads <= MOST_THREADS or min(request.steps, request.n_samples) < 1:
            raise ValueError(f"{threads} threads, {request.steps} steps, {request.n_samples} samples")
        return cls(
            model=str(values["model"]["id"]),
            model_sha256=str(values["model"]["sha256"]),
            request=request,
            source=dict(values["source"]),
            resolution=int(values["resolution"]),
            ignored=Ignored(values["ignored"]),
            decoder=str(values["decoder"]),
            dtype=str(values["dtype"]),
            autoencoder_dtype=str(values["autoencoder_dtype"]) if "autoencoder_dtype" in values else None,
            device=str(values["device"]),
            compiled=bool(values["compiled"]),
            threads=threads,
        )

    def describe(self) -> str:
        """One line for people, as it stands below a grid."""
        request = self.request
        parts = [f"Synthetic, by copgen {__version__}", f"model {'/'.join(Path(self.model).parts[-2:])}"]
        parts += [f"{request.solver} solver, {request.steps} steps", f"seed {request.seed}"]
        if request.guidance_scale and request.conditions:
            parts.append(f"guidance {request.guidance_scale:g}")
        if self.ignored is Ignored.PUBLISHED:
            parts.append("ignored modalities as published")
        if self.decoder != "autoencoder":
            parts.append("preview decoder")
        return " · ".join(parts)


@dataclass(frozen=True, slots=True)
class Provenance:
    """What one picture says of itself."""

    recipe: Recipe
    kind: str
    """sample, mean, std or grid."""
    records: tuple[str, ...]
    """The records that it shows."""
    modality: Modality | None
    """None for a grid, which shows all of them."""
    sample: str | None = None
    """Id of the one sample that it shows; with the seed and the modality, it fixes the noise."""
    inputs: Mapping[str, Mapping[Modality, InputFile]] = field(default_factory=dict)
    """By record."""
    batches: tuple[tuple[str | None, ...], ...] = ()
    """Which samples were computed together, None for those of other pictures: a batch of another size may round
    otherwise by a hair."""
    spread: bool = False
    """Whether the page shows mean and deviation too."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "synthetic": True,
            "software": f"copgen {__version__}",
            **self.recipe.as_dict(),
            "kind": self.kind,
            "records": list(self.records),
            "modality": self.modality and str(self.modality),
            "sample": self.sample,
            "inputs": {
                record: {str(modality): asdict(file) for modality, file in files.items()}
                for record, files in self.inputs.items()
            },
            "batches": [list(batch) for batch in self.batches],
            "spread": self.spread,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Provenance:
        """Raises KeyError, TypeError or ValueError where the values do not describe a picture."""
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r}")
        modality = values["modality"]
        found = cls(
            recipe=Recipe.from_dict(values),
            kind=str(values["kind"]),
            records=tuple(str(name) for name in values["records"]),
            modality=None if modality is None else Modality(modality),
            sample=values["sample"],
            inputs={
                record: {Modality(m): InputFile(str(f["path"]), str(f["sha256"])) for m, f in files.items()}
                for record, files in values["inputs"].items()
            },
            batches=tuple(tuple(batch) for batch in values["batches"]),
            spread=bool(values["spread"]),
        )
        conditional = bool(found.recipe.request.conditions)
        if not found.records or (conditional and not set(found.records) <= found.inputs.keys()):
            raise ValueError("no records, or no inputs for some")
        if not all(any(sample is not None for sample in batch) for batch in found.batches):
            raise ValueError("a batch of no known sample")
        return found

    def as_png_text(self) -> PngImagePlugin.PngInfo:
        """The text chunks of a PNG: for people, for image software, and for `--like`."""
        return synthetic_text(self._describe(), self.as_dict())

    def as_tags(self) -> dict[str, str]:
        """The same for a GeoTIFF, whose own tags programs for maps show."""
        return {
            "TIFFTAG_IMAGEDESCRIPTION": f"Synthetic: {self._describe()}",
            "TIFFTAG_SOFTWARE": f"copgen {__version__}",
            "Synthetic": "true",
            KEY: json.dumps(self.as_dict(), sort_keys=True),
        }

    def _describe(self) -> str:
        """One line for people."""
        given = ", ".join(self.recipe.request.conditions) or "nothing"
        shown = self.modality or ", ".join(self.recipe.request.generated)
        return f"{shown} given {given}. {self.recipe.describe().replace(' · ', ', ')}."


def synthetic_text(description: str, facts: Mapping[str, Any]) -> PngImagePlugin.PngInfo:
    """Text chunks that mark a PNG as synthetic, for people, for image software, and for programs.

    Args:
        description: one line for people.
        facts: how it was made, as JSON takes it.
    """
    text = PngImagePlugin.PngInfo()
    text.add_text("Synthetic", "true")
    text.add_text("Software", f"copgen {__version__}")
    text.add_text("Description", description)
    text.add_text(KEY, json.dumps(facts, sort_keys=True))
    text.add_itxt("XML:com.adobe.xmp", _XMP)
    return text


def read_provenance(picture: Path) -> Provenance:
    """What a picture says of how it was made.

    Raises:
        BrokenInputError: it is no PNG or GeoTIFF, or says nothing that copgen understands.
    """
    try:
        if _begins_with(picture) in TIFF:
            text = read_tags(picture).get(KEY)
        else:
            with Image.open(readable(picture), formats=("PNG",)) as image:
                text = image.info.get(KEY)
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BrokenInputError(
            f"{picture} can not be read as PNG or GeoTIFF.", hint="Give a picture that copgen wrote."
        ) from error
    if not isinstance(text, str):
        raise BrokenInputError(
            f"{picture} does not say how it was made.",
            hint="Give a picture as copgen wrote it: editors and uploads often drop the metadata.",
        )
    try:
        values = json.loads(text)
        if values.get("kind") != "scene":
            return Provenance.from_dict(values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenInputError(
            f"{picture} says how it was made, but this version of copgen ({__version__}) does not understand it.",
            hint="Use the version that its Software entry names.",
        ) from error
    raise MismatchError(
        f"{picture} is a map of copgen scene.", hint=f"This line makes it again: {values.get('command')}"
    )


def _begins_with(picture: Path) -> bytes:
    with picture.open("rb") as stream:
        return stream.read(4)


def samples_together(batches: Sequence[Sequence[str | None]], wanted: set[str]) -> tuple[tuple[str | None, ...], ...]:
    """The batches that hold any of the wanted samples, with all others blanked out."""
    return tuple(
        tuple(sample if sample in wanted else None for sample in batch)
        for batch in batches
        if not wanted.isdisjoint(batch)
    )
