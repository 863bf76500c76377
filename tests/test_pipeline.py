"""The pipeline: images in, images out; samples that depend on their own seed and id; folders that travel."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from PIL import Image
from tiny_models import tiny_autoencoder, tiny_pipeline, tiny_transformer

from copgen_cli import CopGenPipeline
from copgen_cli.errors import BrokenInputError, CopgenError, UnknownNameError, UsageError
from copgen_cli.modalities import PUBLISHED, Modality
from copgen_cli.model.pictures import as_bytes, as_pil
from copgen_cli.model.solvers import make_scheduler
from copgen_cli.records import Solver

SIDE = 64  # pixels; latents of 8 x 8


@pytest.fixture(scope="module")
def pipe():
    return CopGenPipeline(tiny_transformer(1, sample_size=8, patch_size=4), tiny_autoencoder(2))


@pytest.fixture
def pictures():
    """Three different pictures, as bytes (B, H, W, 3)."""
    return np.random.default_rng(5).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


def draw(pipe, **settings):
    return pipe(**{"generate": ["dem"], "num_inference_steps": 2, "output_type": "pt"} | settings)


def test_every_condition_gets_its_samples_side_by_side(pipe, pictures):
    out = draw(pipe, generate=["s2_l2a", "dem"], condition={"s1_rtc": pictures}, num_samples=2, seed=3)

    assert list(out.images) == ["s2_l2a", "dem"]
    assert out.images["dem"].shape == (6, 3, SIDE, SIDE)
    assert out.latents["s2_l2a"].shape == (6, 4, 8, 8)
    for condition in range(3):
        ids = [str(2 * condition), str(2 * condition + 1)]
        alone = draw(
            pipe,
            condition={"s1_rtc": pictures[condition]},
            num_samples=2,
            seed=3,
            sample_ids=ids,
            generate=["s2_l2a", "dem"],
        )
        torch.testing.assert_close(
            alone.latents["dem"], out.latents["dem"][2 * condition : 2 * condition + 2], rtol=1e-4, atol=1e-4
        )


def test_a_sample_depends_on_its_seed_and_id_and_not_on_its_company(pipe, pictures):
    settings = {"condition": {"s1_rtc": pictures[0]}, "seed": 7}
    three = draw(pipe, num_samples=3, sample_ids=["a", "b", "c"], **settings).latents["dem"]

    alone = draw(pipe, sample_ids=["b"], **settings).latents["dem"]
    halved = draw(pipe, num_samples=3, sample_ids=["a", "b", "c"], batch_size=2, **settings).latents["dem"]

    torch.testing.assert_close(alone[0], three[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(halved, three, rtol=1e-4, atol=1e-4)
    assert (three[0] - three[1]).abs().mean() > 0.1


def test_the_same_generator_state_gives_the_same_pictures_and_moves_on(pipe):
    first, again = (draw(pipe, generator=torch.Generator().manual_seed(1)).images["dem"] for _ in range(2))
    generator = torch.Generator().manual_seed(1)
    in_turn = [draw(pipe, generator=generator).images["dem"] for _ in range(2)]

    assert torch.equal(first, again)
    assert torch.equal(in_turn[0], first)
    assert not torch.equal(in_turn[1], first)


def test_every_form_of_a_picture_is_the_same_picture(pictures):
    tensor = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    forms = [
        pictures,
        list(pictures),
        [Image.fromarray(p) for p in pictures],
        tensor,
        tensor / 255,
        tensor.double() / 255,
    ]

    assert all(torch.equal(as_bytes(form, name="dem", side=SIDE), tensor) for form in forms)
    one = [pictures[0], Image.fromarray(pictures[0]), tensor[0], tensor[0] / 255]
    assert all(torch.equal(as_bytes(form, name="dem", side=SIDE), tensor[:1]) for form in one)
    grey = as_bytes([pictures[0, ..., 0], Image.fromarray(pictures[0, ..., 0])], name="dem", side=SIDE)
    assert torch.equal(grey, torch.from_numpy(pictures[0, ..., 0]).expand(2, 3, -1, -1))
    assert [np.array(image).tolist() for image in as_pil(tensor / 255)] == pictures.tolist()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.zeros((32, SIDE, 3), np.uint8), "64 x 32 px, the model takes 64 x 64"),
        (Image.fromarray(np.full((SIDE, SIDE), 3000, np.uint16)), "mode I;16"),
        (Image.new("RGB", (SIDE, 32)), "64 x 32 px"),
        (np.zeros((SIDE, SIDE, 3), np.float32), "float32 array"),
        (torch.full((1, 3, SIDE, SIDE), 255.0), r"not all within \[0, 1\]"),
        (torch.full((1, 3, SIDE, SIDE), torch.nan), r"not all within \[0, 1\]"),
        (torch.zeros(SIDE, SIDE), "tensor"),
        ([], "No pictures"),
        ("scene.png", "can't be given as str"),
    ],
)
def test_a_picture_of_another_form_or_size_is_refused_by_the_name_of_its_modality(pipe, given, told):
    with pytest.raises(UsageError, match=told) as caught:
        draw(pipe, condition={"s1_rtc": given})
    assert "s1_rtc" in str(caught.value)


def test_conditions_that_differ_in_number_are_refused(pipe, pictures):
    with pytest.raises(UsageError, match="3 for s1_rtc, 2 for s2_l2a"):
        draw(pipe, condition={"s1_rtc": pictures, "s2_l2a": pictures[:2]})
    with pytest.raises(UsageError, match="2 sample_ids for 3 samples"):
        draw(pipe, num_samples=3, sample_ids=["a", "b"])


def test_nothing_is_decoded_for_latents_and_each_generated_modality_once_otherwise(pipe, pictures, monkeypatch):
    decoded, encoded = [], []
    decode, encode = pipe.vae.decode, pipe.vae.encode
    monkeypatch.setattr(pipe.vae, "decode", lambda z: decoded.append(len(z)) or decode(z))
    monkeypatch.setattr(pipe.vae, "encode", lambda x: encoded.append(len(x)) or encode(x))
    settings = {"generate": ["dem", "s2_l1c"], "condition": {"s1_rtc": pictures[:2]}, "num_samples": 3}

    latent = draw(pipe, output_type="latent", **settings)
    assert decoded == []
    assert torch.equal(latent.images["dem"], latent.latents["dem"])

    draw(pipe, **settings)
    assert decoded == [6, 6]
    assert encoded == [2, 2]  # once per call, however many samples


def test_pil_pictures_are_the_rounded_tensors(pipe):
    tensors = draw(pipe, seed=1, num_samples=2).images["dem"]
    images = draw(pipe, seed=1, num_samples=2, output_type="pil").images["dem"]

    assert [image.size for image in images] == [(SIDE, SIDE)] * 2
    bytes_ = (tensors * 255 + 0.5).floor().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert all(np.array_equal(np.array(image), expected) for image, expected in zip(images, bytes_, strict=True))


def test_a_condition_changes_the_result_and_guidance_strengthens_it(pipe, pictures):
    free = draw(pipe, seed=1).latents["dem"]
    given = draw(pipe, seed=1, condition={"s1_rtc": pictures[0]}).latents["dem"]
    guided = draw(pipe, seed=1, condition={"s1_rtc": pictures[0]}, guidance_scale=2.0).latents["dem"]

    assert (given - free).abs().max() > 1e-4
    assert (guided - given).abs().max() > 1e-4


def test_a_modality_that_the_model_does_not_have_is_named(pictures):
    pipe = CopGenPipeline(tiny_transformer(0, modalities=["s1_rtc", "s2_l2a"], sample_size=8), tiny_autoencoder(0))

    assert pipe.modalities == (Modality.S1RTC, Modality.S2L2A)
    assert draw(pipe, generate="s2_l2a", condition={"s1_rtc": pictures[0]}).images.keys() == {"s2_l2a"}
    with pytest.raises(UnknownNameError, match="'dem'") as caught:
        draw(pipe, generate="dem")
    assert "s1_rtc, s2_l2a" in caught.value.hint


def test_an_output_type_that_there_is_not_is_refused_before_anything_is_drawn(pipe):
    with pytest.raises(UnknownNameError, match="'np'"):
        draw(pipe, output_type="np", callback=lambda *_: pytest.fail("drawn"))


def test_the_pipelines_own_scheduler_can_be_exchanged_for_another_of_diffusers(pipe):
    by_name = draw(pipe, seed=1, solver="dpm++2m", num_inference_steps=4).latents["dem"]
    by_own = draw(pipe, seed=1, solver="scheduler", num_inference_steps=4).latents["dem"]
    assert torch.equal(by_own, by_name)

    other = CopGenPipeline(pipe.transformer, pipe.vae, DDIMScheduler.from_config(pipe.scheduler.config))
    assert not torch.equal(draw(other, seed=1, solver="scheduler", num_inference_steps=4).latents["dem"], by_name)

    clipping = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=True)
    with pytest.raises(ValueError, match="clip_sample=False"):
        draw(CopGenPipeline(pipe.transformer, pipe.vae, clipping), solver="scheduler")
    wrong = CopGenPipeline(pipe.transformer, pipe.vae, EulerDiscreteScheduler())
    with pytest.raises(ValueError, match="another noise schedule"):
        draw(wrong, solver="scheduler")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"generate": []}, "Nothing to generate"),
        ({"generate": [0]}, "Unknown modality"),
        ({"generate": ["dem"], "condition": {"dem": None}}, "dem is both given and to be generated"),
        ({"condition": Image.new("RGB", (SIDE, SIDE))}, "The condition is a Image"),
        ({"num_inference_steps": 0}, "less than 1"),
        ({"batch_size": 0}, "less than 1"),
        ({"ignored": "never"}, "Unknown way with ignored modalities"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_wrong_call_is_told_by_its_names(pipe, settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        draw(pipe, **settings)


def test_a_call_draws_its_progress_unless_that_is_switched_off(pipe, capsys):
    draw(pipe, num_samples=2, batch_size=1, num_inference_steps=3)
    assert "6/6" in capsys.readouterr().err

    pipe.set_progress_bar_config(disable=True)
    draw(pipe)
    pipe.set_progress_bar_config()
    assert capsys.readouterr().err == ""


def test_pictures_are_taken_as_a_list_of_tensors_too(pipe, pictures):
    tensors = [torch.from_numpy(picture).permute(2, 0, 1) for picture in pictures]

    listed, stacked = (
        draw(pipe, condition={Modality.S1RTC: given}, seed=1).latents["dem"] for given in (tensors, pictures)
    )

    assert torch.equal(listed, stacked)


def test_a_saved_pipeline_comes_back_the_same(pipe, tmp_path):
    pipe = CopGenPipeline(pipe.transformer, pipe.vae, make_scheduler(Solver.DDIM))
    pipe.save_pretrained(tmp_path / "model")

    loaded = CopGenPipeline.from_pretrained(tmp_path / "model")

    settings = {"generate": ["dem", "s2_l1c"], "seed": 4, "num_samples": 2}
    before, after = draw(pipe, **settings), draw(loaded, **settings)
    assert all(torch.equal(before.images[name], after.images[name]) for name in before.images)
    by_own = [draw(p, seed=4, solver="scheduler").latents["dem"] for p in (pipe, loaded)]
    assert torch.equal(*by_own)
    assert type(loaded.scheduler) is type(pipe.scheduler)
    index = json.loads((tmp_path / "model/model_index.json").read_text())
    assert index["_class_name"] == "CopGenPipeline"
    assert index["transformer"] == ["copgen_cli.model.transformer", "CopGenTransformer"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_transformer_of_a_pipeline_can_be_loaded_in_half_precision(tmp_path):
    tiny_pipeline(tmp_path / "model", sample_size=8, patch_size=4)

    pipe = CopGenPipeline.from_pretrained(tmp_path / "model", torch_dtype=torch.bfloat16)

    assert (pipe.transformer.dtype, pipe.vae.dtype) == (torch.bfloat16, torch.float32)
    assert draw(pipe).images["dem"].isfinite().all()
    pipe.to(torch.bfloat16)
    assert draw(pipe).images["dem"].dtype == torch.float32
    assert pipe.vae.dtype == torch.bfloat16


def test_saving_into_a_folder_keeps_what_else_is_there_and_a_card_that_someone_wrote(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("my own card")
    (tmp_path / "notes.txt").write_text("mine")

    CopGenPipeline(tiny_transformer(9, sample_size=8), pipe.vae).save_pretrained(tmp_path)

    assert (tmp_path / "README.md").read_text() == "my own card"
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert CopGenPipeline.from_pretrained(tmp_path).transformer.config.patch_size == 8


def test_the_card_says_what_the_hub_wants_to_know(pipe, tmp_path):
    from huggingface_hub import ModelCard

    pipe.save_pretrained(tmp_path / "earth", license="apache-2.0", notes="## Data\n\nSimulated.")

    card = ModelCard.load(tmp_path / "earth/README.md")
    assert card.data.library_name == "diffusers"
    assert card.data.license == "apache-2.0"
    assert pipe.autoencoder.fingerprint in card.text
    assert "synthetic" in card.text
    assert card.text.rstrip().endswith("Simulated.")


def test_a_folder_without_an_autoencoder_is_refused_unless_one_is_given(pipe, tmp_path):
    pipe.transformer.save_pretrained(tmp_path / "transformer")

    with pytest.raises(BrokenInputError, match="no autoencoder"):
        CopGenPipeline.from_pretrained(tmp_path)
    assert CopGenPipeline.from_pretrained(tmp_path, vae=pipe.vae).vae is pipe.vae


def test_a_file_of_weights_gets_the_published_autoencoder(pipe, tmp_path, monkeypatch):
    torch.save(pipe.transformer.state_dict(), tmp_path / "nnet.pth")
    asked = []
    monkeypatch.setattr("copgen_cli.pipeline.sources.read_autoencoder", lambda s, *_: asked.append(s) or pipe.vae)

    loaded = CopGenPipeline.from_pretrained(tmp_path / "nnet.pth", num_heads=2)

    assert asked == ["stabilityai/sd-vae-ft-ema"]
    assert loaded.modalities == tuple(PUBLISHED)


def test_a_source_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CopgenError, match="nowhere"):
        CopGenPipeline.from_pretrained(tmp_path / "nowhere")


def test_what_a_foreign_index_names_is_never_imported(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "model")
    evil = tmp_path / "model/transformer/evil.py"
    evil.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    index = json.loads((tmp_path / "model/model_index.json").read_text())
    index["transformer"] = ["evil", "Evil"]
    (tmp_path / "model/model_index.json").write_text(json.dumps(index))

    CopGenPipeline.from_pretrained(tmp_path / "model")

    assert not (tmp_path / "ran").exists()
    scheduler = tmp_path / "model/scheduler/scheduler_config.json"
    scheduler.write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    with pytest.raises(BrokenInputError, match="no scheduler"):
        CopGenPipeline.from_pretrained(tmp_path / "model")


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as one upload needs; keeps what is committed."""

    committed: ClassVar[dict[str, bytes]] = {}
    has_card = False

    def do_HEAD(self):
        self.send_response(200 if self.has_card else 404)
        self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("ETag", '"0"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()

    def do_GET(self):  # what huggingface-hub 0.34 wants to know before it uploads
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"id": "you/earth", "xetEnabled": false}')

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = {"url": f"http://{self.headers['Host']}/you/earth", "errors": [], "warnings": []}
        if "/preupload/" in self.path:
            files = [file["path"] for file in json.loads(body)["files"]]
            answer["files"] = [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in files]
        if "/commit/" in self.path:
            lines = [json.loads(line) for line in body.splitlines()]
            files = [line["value"] for line in lines if line["key"] == "file"]
            self.committed.clear()
            self.committed.update({file["path"]: base64.b64decode(file["content"]) for file in files})
            answer |= {"commitUrl": f"http://{self.headers['Host']}/you/earth/commit/1", "commitOid": "1"}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    file_url = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", file_url)
    # huggingface-hub 0.34 has a copy of it where it is used
    monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", file_url, raising=False)
    yield Hub
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("has_card", [False, True])
def test_publishing_uploads_a_whole_pipeline_and_a_card_where_there_is_none(pipe, hub, tmp_path, has_card, monkeypatch):
    monkeypatch.setattr(hub, "has_card", has_card)

    address = pipe.push_to_hub("you/earth", token="not-a-token", license="apache-2.0")

    assert address.endswith("/you/earth/commit/1")
    assert ("README.md" in hub.committed) is not has_card
    if not has_card:
        assert b"license: apache-2.0" in hub.committed["README.md"]
        assert b'from_pretrained("you/earth")' in hub.committed["README.md"]
    for path, content in hub.committed.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    loaded = CopGenPipeline.from_pretrained(tmp_path)
    assert torch.equal(draw(loaded, seed=1).images["dem"], draw(pipe, seed=1).images["dem"])
