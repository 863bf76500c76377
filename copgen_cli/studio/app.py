"""The routes: typed requests in, typed answers out. Ids alone come from a client; no path does."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import mimetypes
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import StringConstraints
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from copgen_cli import __version__
from copgen_cli.errors import CopgenError
from copgen_cli.modalities import Modality
from copgen_cli.records import Solver
from copgen_cli.sampling import LoadedModel
from copgen_cli.settings import Settings
from copgen_cli.studio.generation import Kept, Studio, view_of
from copgen_cli.studio.guard import Guard
from copgen_cli.studio.problems import NotThereError, QueueFullError, status_of
from copgen_cli.studio.results.items import item_of
from copgen_cli.studio.results.pictures import png_of, png_of_map
from copgen_cli.studio.results.points import values_at
from copgen_cli.studio.results.scores import scores_of
from copgen_cli.studio.schemas import (
    Ask,
    Health,
    ModalityInfo,
    ModelInfo,
    PixelValues,
    Place,
    Problem,
    RegionInfo,
    RequestState,
    Scores,
    UploadInfo,
)
from copgen_cli.studio.tickets import BUG, TicketQueue

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
HEARTBEAT = 15.0
"""Seconds after which a stream of events says that it is still there."""
PNG, GEOTIFF, GEOJSON = "image/png", "image/tiff; application=geotiff", "application/geo+json"
LASTING = {"cache-control": "private, max-age=3600"}
"""Of what never changes under its address."""


def create_app(
    settings: Settings, model: LoadedModel, *, token: str | None = None, config: Path | None = None
) -> FastAPI:
    """The application around one open model; its worker starts and ends with it."""
    studio = Studio.of(settings, model, config)
    queue = TicketQueue(studio.work, settings.studio.queue)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        queue.start()
        yield
        await asyncio.to_thread(queue.stop)

    app = FastAPI(title="copgen studio", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.studio, app.state.queue = studio, queue
    app.include_router(router)
    mimetypes.add_type("text/javascript", ".js")  # whatever the registry of the system says
    app.mount("/", GZipMiddleware(StaticFiles(directory=PAGE, html=True)), name="page")
    app.add_exception_handler(CopgenError, _tell_problem)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    app.add_exception_handler(HTTPException, _tell_status)
    app.add_exception_handler(Exception, _tell_bug)
    app.add_middleware(Guard, token=token)
    return app


def _studio(request: Request) -> Studio:
    studio: Studio = request.app.state.studio
    return studio


def _queue(request: Request) -> TicketQueue:
    queue: TicketQueue = request.app.state.queue
    return queue


TheStudio = Annotated[Studio, Depends(_studio)]
TheQueue = Annotated[TicketQueue, Depends(_queue)]
PictureName = Annotated[str, StringConstraints(pattern=r"^(pictures|truth|given)/\w{1,100}$")]
Share = Annotated[float, Query(ge=0, lt=1)]
PROBLEMS: dict[int | str, dict[str, Any]] = {code: {"model": Problem} for code in (401, 403, 404, 413, 422, 429, 500)}
router = APIRouter(responses=PROBLEMS)


@router.get("/healthz")
def health(queue: TheQueue) -> Health:
    """Whether it answers, and how much waits."""
    return Health(version=__version__, waiting=queue.waiting, running=queue.is_running)


@router.get("/api/model")
def describe_model(studio: TheStudio) -> ModelInfo:
    """The open model, what it knows, and the defaults."""
    model, sample, limits = studio.model, studio.settings.sample, studio.settings.studio
    return ModelInfo(
        source=model.source,
        sha256=model.sha256,
        version=__version__,
        family=studio.places.family,
        modalities=[_modality(modality) for modality in model.modalities],
        side=model.picture_side,
        device=model.net.device.type,
        dtype=str(model.net.dtype).removeprefix("torch."),
        defaults={
            "n_samples": sample.n_samples,
            "steps": sample.steps,
            "solver": str(sample.solver),
            "guidance_scale": sample.guidance_scale,
            "seed": sample.seed,
        },
        solvers=[str(solver) for solver in Solver],
        limits={"n_samples": limits.most_samples, "steps": limits.most_steps, "upload_bytes": limits.upload_bytes},
    )


@router.get("/api/regions")
def list_regions(studio: TheStudio) -> list[RegionInfo]:
    """What lies below the data folder."""
    return studio.places.regions()


@router.get("/api/regions/{region}/cells")
def list_cells(region: str, studio: TheStudio) -> dict[str, Any]:
    """GeoJSON of the cells of a region, with their split."""
    return studio.places.cells(region)


@router.get("/api/regions/{region}/cells/{cell}/patches")
def list_patches(region: str, cell: str, studio: TheStudio) -> dict[str, Any]:
    """GeoJSON of the patches of a cell, with what there is of them."""
    return studio.places.patches(region, cell)


@router.get("/api/regions/{region}/patches/{patch}/{modality}.png", response_class=Response)
def show_patch(region: str, patch: str, modality: str, studio: TheStudio) -> Response:
    """A patch in one modality, as the model takes it."""
    known = studio.modality(modality)
    file = studio.places.file(Place(region=region, patch=patch), known)
    if file is None:
        raise NotThereError.of(f"{known} of", patch)
    return Response(view_of(studio, file, known), media_type=PNG, headers=LASTING)


@router.post("/api/uploads", status_code=201)
async def upload(
    request: Request, modality: Annotated[str, Query(min_length=1, max_length=200)], studio: TheStudio
) -> UploadInfo:
    """Take a PNG, JPEG, WebP or GeoTIFF; the body of the request is the file."""
    known = studio.modality(modality)
    part = await studio.uploads.receive(request.stream())
    return await asyncio.to_thread(studio.uploads.add, part, known)


@router.get("/api/uploads/{name}.png", response_class=Response)
def show_upload(name: str, studio: TheStudio) -> Response:
    """An uploaded file, as the model takes it."""
    return Response(studio.uploads.get(name).png, media_type=PNG, headers=LASTING)


@router.post("/api/requests", status_code=202)
def submit(ask: Ask, studio: TheStudio, queue: TheQueue) -> RequestState:
    """Ask for pictures. What was drawn before is done at once; all else waits for its turn."""
    checked = studio.check(ask)
    ticket = queue.submit(ask, checked.key, studio.known(checked.key))
    return queue.state_of(ticket)


@router.get("/api/requests/{name}")
def describe_request(name: str, queue: TheQueue) -> RequestState:
    """Where a request stands."""
    return queue.state_of(queue.get(name))


@router.delete("/api/requests/{name}")
def cancel(name: str, queue: TheQueue) -> RequestState:
    """Call a request off; one that is finished stays as it is."""
    return queue.state_of(queue.cancel(name))


@router.get("/api/requests/{name}/events", response_class=StreamingResponse)
async def follow(name: str, queue: TheQueue) -> StreamingResponse:
    """Server-sent events: its state now and at every change, up to its end. May be asked for again at any time."""
    ticket = queue.get(name)

    async def events() -> AsyncIterator[str]:
        async for state in queue.states_of(ticket, HEARTBEAT):
            yield ": still there\n\n" if state is None else f"event: state\ndata: {state.model_dump_json()}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@router.get("/api/requests/{name}/preview/{modality}.png", response_class=Response)
def show_preview(name: str, modality: str, queue: TheQueue) -> Response:
    """What the network takes the first sample to be, while it is at it."""
    ticket = queue.get(name)
    png = ticket.previews.get(modality)
    if png is None:
        raise NotThereError.of("preview of", modality)
    return Response(png, media_type=PNG)


@router.get("/api/requests/{name}/pictures/{number}.png", response_class=Response)
def show_picture(name: str, number: int, studio: TheStudio, queue: TheQueue, download: bool = False) -> Response:
    """A picture as PNG, with its provenance."""
    kept, file = _picture(studio, queue, name, number)
    headers = LASTING | (_named(kept.names[number], "png") if download else {})
    return Response(png_of_map(file) if kept.is_map else png_of(file), media_type=PNG, headers=headers)


@router.get("/api/requests/{name}/pictures/{number}.tif", response_class=Response)
def fetch_geotiff(name: str, number: int, studio: TheStudio, queue: TheQueue) -> Response:
    """A picture as GeoTIFF, with its place and its provenance."""
    kept, file = _picture(studio, queue, name, number)
    return FileResponse(file, media_type=GEOTIFF, headers=_named(kept.names[number], "tif"))


@router.get("/api/requests/{name}/pictures/{number}.json", response_class=Response)
def fetch_item(name: str, number: int, studio: TheStudio, queue: TheQueue) -> Response:
    """The STAC item of a picture whose place is known; its asset is the GeoTIFF, under the name that it is given."""
    kept, _ = _picture(studio, queue, name, number)
    return Response(item_of(kept, number), media_type=GEOJSON, headers=_named(kept.names[number], "json"))


@router.get("/api/requests/{name}/values")
def read_values(
    name: str,
    of: Annotated[list[PictureName], Query(min_length=1, max_length=4)],
    across: Share,
    down: Share,
    studio: TheStudio,
    queue: TheQueue,
) -> list[PixelValues]:
    """What pictures hold at a point, in the unit of the modality; `across` and `down` are shares of their sides."""
    kept = _kept(studio, queue, name)
    return [values_at(kept, one, (across, down), studio.frame) for one in of]


@router.get("/api/requests/{name}/given/{modality}.png", response_class=Response)
def show_given(name: str, modality: str, studio: TheStudio, queue: TheQueue) -> Response:
    """What was given, as the model took it."""
    return _beside(studio, _kept(studio, queue, name).inputs, modality)


@router.get("/api/requests/{name}/truth/{modality}.png", response_class=Response)
def show_truth(name: str, modality: str, studio: TheStudio, queue: TheQueue) -> Response:
    """What the place is really like, where it is known."""
    return _beside(studio, _kept(studio, queue, name).truths, modality)


@router.get("/api/requests/{name}/scores")
def judge(name: str, studio: TheStudio, queue: TheQueue) -> Scores:
    """The numbers of `copgen evaluate` for this result."""
    return scores_of(_kept(studio, queue, name), studio.frame)


@router.get("/api/requests/{name}/documents/{number}.json", response_class=Response)
def fetch_document(name: str, number: int, studio: TheStudio, queue: TheQueue) -> Response:
    """How all of it was made, as `copgen sample` or `copgen scene` writes it down; of maps the STAC items as well."""
    kept = _kept(studio, queue, name)
    if not 0 <= number < len(kept.documents):
        raise NotThereError.of("document", str(number))
    stem = kept.result.documents[number].removesuffix(".json")
    return FileResponse(kept.documents[number], media_type="application/json", headers=_named(stem, "json"))


def _kept(studio: Studio, queue: TicketQueue, name: str) -> Kept:
    ticket = queue.get(name)
    if ticket.result is None:
        raise NotThereError.of("result of", name)
    return studio.kept(ticket.key)


def _picture(studio: Studio, queue: TicketQueue, name: str, number: int) -> tuple[Kept, Path]:
    kept = _kept(studio, queue, name)
    if not 0 <= number < len(kept.files):
        raise NotThereError.of("picture", str(number))
    return kept, kept.files[number]


def _beside(studio: Studio, files: Any, modality: str) -> Response:
    known = studio.modality(modality)
    if known not in files:
        raise NotThereError.of("picture of", modality)
    return Response(view_of(studio, files[known], known), media_type=PNG, headers=LASTING)


def _named(stem: str, suffix: str) -> dict[str, str]:
    plain = "".join(c if (c.isalnum() and c.isascii()) or c in "-_." else "_" for c in stem)
    return {"content-disposition": f'attachment; filename="{plain}.{suffix}"'}


@functools.cache
def _modality(modality: Modality) -> ModalityInfo:
    spec = modality.spec
    return ModalityInfo(
        name=str(modality),
        title=spec.title,
        kind=str(spec.kind),
        unit=spec.unit,
        bands=list(spec.bands),
        side=spec.side,
        pixel_size=spec.pixel_size,
    )


def _tell_problem(request: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, CopgenError)
    headers = {"retry-after": str(problem.seconds)} if isinstance(problem, QueueFullError) else None
    told = Problem(error=str(problem), hint=problem.hint)
    return JSONResponse(told.model_dump(), status_of(problem), headers)


def _tell_invalid(request: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, RequestValidationError)
    first = problem.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
    told = Problem(error=f"{where}: {first['msg']}.", hint="/openapi.json says what is expected.")
    return JSONResponse(told.model_dump(), 422)


def _tell_status(request: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, HTTPException)
    told = Problem(error=f"{problem.detail}.", hint="/openapi.json lists what there is.")
    return JSONResponse(told.model_dump(), problem.status_code, problem.headers)


def _tell_bug(request: Request, problem: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=problem)
    return JSONResponse(BUG.model_dump(), 500)
