"""What others have configured: proxies, certificates, tokens, accelerate, little shared memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from sample_commands import call_copgen
from tiny_archive import rome_rows, write_archive
from tiny_hub import TinyHub
from tiny_stores import tiny_store

from copgen_cli import launching

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in PROXIES:
        for spelling in (name, name.upper()):
            monkeypatch.delenv(spelling, raising=False)


@pytest.fixture
def hub(tmp_path):
    write_archive(tmp_path / "archive", rome_rows(), size=64)
    with TinyHub(tmp_path / "archive") as hub:
        yield hub


def download(capsys, tmp_path, endpoint):
    return call_copgen(capsys, "download", "--endpoint", endpoint, "--data-dir", tmp_path / "data")


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_dead_proxy_is_named_and_not_the_endpoint_blamed(capsys, tmp_path, monkeypatch, hub, variable):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv(variable, f"http://user:secret@127.0.0.1:{port}")

    call = download(capsys, tmp_path, hub.endpoint)

    assert call.code == 1
    assert f"No answer from the proxy http://127.0.0.1:{port} ({variable})" in call.err
    assert "secret" not in call.err
    assert "--endpoint" not in call.err


def test_a_socks_proxy_without_pysocks_is_not_a_false_address(capsys, tmp_path, monkeypatch, hub):
    monkeypatch.setitem(sys.modules, "socks", None)
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1080")

    call = download(capsys, tmp_path, hub.endpoint)

    assert call.code == 2
    assert "speaks SOCKS, for which PySocks is missing" in call.err
    assert "pip install pysocks" in call.err


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_that_are_not_there_are_named(capsys, tmp_path, monkeypatch, variable):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "/no/such/bundle.pem")

    call = download(capsys, tmp_path, "https://127.0.0.1:9")

    assert call.code == 2
    assert f"{variable} names certificates that are not there: /no/such/bundle.pem" in call.err


def test_the_stored_token_goes_to_the_public_hub_alone(tmp_path):
    (tmp_path / "token").write_text("hf_stored\n")
    told = "from copgen_cli.archive.opening import stored_token as t; print(*map(t, __import__('sys').argv[1:]))"
    endpoints = ["https://huggingface.co", "https://huggingface.co/", "http://huggingface.co", "https://mirror.example"]

    def ask(**variables: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_TOKEN_PATH": str(tmp_path / "token")} | variables
        command = [sys.executable, "-c", told, *endpoints]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert ask() == "hf_stored hf_stored None None"
    assert ask(HF_HUB_DISABLE_IMPLICIT_TOKEN="1") == "None None None None"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "There is no file"),
        (b"", "is no configuration of accelerate"),
        (b"just words", "is no configuration of accelerate"),
        (b"{", "is no configuration of accelerate"),
        (b"distributed_type: [", "is no configuration of accelerate"),
        (b"\xff\xfe\x00", "is no configuration of accelerate"),
        (b"nonsense: 1", "is no configuration of accelerate"),
    ],
)
@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_configuration_of_accelerate_that_is_none_is_wrong_usage(tmp_path, capsys, content, told, suffix):
    store, file = tiny_store(tmp_path / "store", side=8), tmp_path / f"accelerate.{suffix}"
    if content is not None:
        file.write_bytes(content)

    call = call_copgen(
        capsys, "train", "--data", store, "--preset", "tiny", "--workdir", tmp_path / "run", "--device", "cpu",
        "--accelerate-config", file,
    )  # fmt: skip

    assert call.code == 2, call.err
    assert told in call.err


def test_a_default_configuration_of_accelerate_that_nobody_named_does_not_matter(tmp_path, monkeypatch):
    from accelerate.commands import launch

    (tmp_path / "default_config.yaml").write_text("distributed_type: DEEPSPEED\nnonsense: [")
    monkeypatch.setattr(launch, "default_config_file", str(tmp_path / "default_config.yaml"))

    def read(*arguments: str):
        return launch._validate_launch_command(launch.launch_command_parser().parse_args([*arguments, "script.py"]))

    with pytest.raises(FileNotFoundError, match="default_config"):  # the library itself reads one
        read("--multi_gpu", "--num_processes", "2")
    chosen, *_ = read(*launching._arguments(2, launching._own_configuration(tmp_path)))
    assert (chosen.multi_gpu, chosen.num_processes, chosen.use_deepspeed) == (True, 2, False)


def test_too_little_shared_memory_is_named(tmp_path, capsys, monkeypatch):
    store, small = tiny_store(tmp_path / "store", side=8), tmp_path / "shm"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "copgen-test", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    monkeypatch.setattr("copgen_cli.training.data_order.SHARED_MEMORY", small)
    try:
        call = call_copgen(
            capsys, "train", "--data", store, "--preset", "tiny", "--device", "cpu", "--steps", "3",
            "--batch-size", "8", "--workers", "2", "--preview-every", "0", "--workdir", tmp_path / "run",
        )  # fmt: skip
    finally:
        subprocess.run(["umount", str(small)], check=True)

    assert call.code == 1, call.err
    assert f"{small} has 0 MiB free" in call.err
    assert "--shm-size" in call.err
    assert "--workers 0" in call.err
