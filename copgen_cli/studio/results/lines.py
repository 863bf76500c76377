"""The command line, and the lines of Python, that make the pixels of a request without the page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from copgen_cli.modalities import Modality
from copgen_cli.outputs import sample_ids
from copgen_cli.records import Ignored
from copgen_cli.sampling import Job
from copgen_cli.studio.schemas import Lines

OUTPUT = "outputs/from-studio"


def lines_of(job: Job, inputs: Mapping[Modality, Path], scalars: Mapping[str, str], config: Path | None) -> Lines:
    """Both, of a job whose conditions are files and scalars."""
    command = _command(job, inputs, scalars, config)
    plain = job.generator.autoencoders.of_all is not None and not scalars
    python = _pipeline(job, inputs) if plain else through_main(command)
    return Lines(command=shlex.join(command), python=python)


def _command(job: Job, inputs: Mapping[Modality, Path], scalars: Mapping[str, str], config: Path | None) -> list[str]:
    recipe, request = job.recipe, job.recipe.request
    words = ["copgen", *(["--config", str(config.absolute())] if config else []), "sample"]
    words += ["--model", _found_anywhere(recipe.model)]
    for modality, file in inputs.items():
        words += ["--input", f"{modality}={file.absolute()}"]
    for name, value in scalars.items():
        words += ["--given", f"{name}={value}"]
    words += ["--generate", ",".join(request.generated), "--n-samples", str(request.n_samples)]
    words += ["--steps", str(request.steps), "--solver", str(request.solver)]
    words += ["--guidance-scale", f"{request.guidance_scale!r}", "--seed", str(request.seed)]
    words += ["--spread"] if job.spread else []
    words += ["--ignored", str(recipe.ignored)] if recipe.ignored is not Ignored.MARGINALISE else []
    words += ["--batch-size", str(job.batch_size), "--device", recipe.device, "--dtype", recipe.dtype]
    return [*words, "--save-as", "geotiff", "--output", OUTPUT]


def _pipeline(job: Job, inputs: Mapping[Modality, Path]) -> str:
    recipe, request = job.recipe, job.recipe.request
    ids = [sample for name in job.names for sample in sample_ids(name, request)]
    given = "".join(f"        {str(m)!r}: fitted({str(file.absolute())!r}),\n" for m, file in inputs.items())
    condition = f"    condition={{\n{given}    }},\n" if given else ""
    dtype = "" if recipe.dtype == "float32" else f", torch_dtype=torch.{recipe.dtype}"
    device = "" if recipe.device == "cpu" else f".to({recipe.device!r})"
    fit = (
        "def fitted(file):\n"
        f"    return Image.fromarray(Frame({job.frame.side}, {job.frame.resolution}).fit(read_rgb(Path(file))))\n\n\n"
    )
    imports = "from pathlib import Path\n\n" + ("import torch\n" if dtype else "") + "from PIL import Image\n\n"
    inner = "from copgen_cli import CopGenPipeline\nfrom copgen_cli.inputs import Frame, read_rgb\n\n\n"
    head = imports + inner + fit if given else ("import torch\n\n" if dtype else "") + inner.splitlines()[0] + "\n\n"
    return (
        f"{head}"
        f"pipe = CopGenPipeline.from_pretrained({_found_anywhere(recipe.model)!r}{dtype}){device}\n"
        "out = pipe(\n"
        f"    generate={[str(m) for m in request.generated]!r},\n"
        f"{condition}"
        f"    num_samples={request.n_samples},\n"
        f"    num_inference_steps={request.steps},\n"
        f"    solver={str(request.solver)!r},\n"
        f"    guidance_scale={request.guidance_scale!r},\n"
        f"    seed={request.seed},\n"
        f"    sample_ids={ids!r},\n"
        f"    batch_size={job.batch_size},\n"
        f"    ignored={str(recipe.ignored)!r},\n"
        ")\n"
        f"out.images[{str(request.generated[0])!r}][0].show()\n"
    )


def through_main(command: list[str]) -> str:
    """The command in a process of Python: of scenes, and of models that know measurements."""
    inner = "".join(f"    {word!r},\n" for word in command[1:])
    return f"from copgen_cli.app import main\n\nmain([\n{inner}])\n"


def _found_anywhere(model: str) -> str:
    """A folder or file by its whole path; names of the package and of the hub as they are."""
    return str(Path(model).expanduser().absolute()) if Path(model).expanduser().exists() else model
