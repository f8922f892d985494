"""The model hub: is it there at all, and what it has. Only safetensors weights are taken, never pickles."""

from __future__ import annotations

import functools
import os
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Literal

from vlkit.errors import AssetError
from vlkit.foreign import read_json

PROBE_SECONDS = 3.0
_ALLOW = ["*.json", "model*.safetensors", "*.txt", "*.model", "*.jinja", "tokenizer*", "sentencepiece*", "spiece*",
          "README.md"]  # fmt: skip
_IGNORE = ["onnx/*", "openvino/*", "original/*", "*/model*.safetensors", "*.bin", "*.pt", "*.pth", "*.pkl", "*.h5",
           "*.msgpack"]  # fmt: skip
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def offline() -> str | None:
    """The environment variable that forbids the hub, e.g. ``"HF_HUB_OFFLINE=1"``; None when it is allowed."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        value = os.environ.get(name, "")
        if value.upper() in {"1", "ON", "YES", "TRUE"}:
            return f"{name}={value}"
    return None


def endpoint() -> str:
    """The hub's address: ``$HF_ENDPOINT``, else the public one."""
    if named := os.environ.get("HF_ENDPOINT"):
        return named.rstrip("/")
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


@functools.cache
def unreachable(address: str) -> str | None:
    """Why the hub cannot be reached, or None; asked once a process, decided within PROBE_SECONDS."""
    answer: list[str | None] = []
    # A thread, since looking up a host name heeds no timeout.
    asking = threading.Thread(target=lambda: answer.append(ask(address)), daemon=True)
    asking.start()
    asking.join(PROBE_SECONDS)
    return answer[0] if answer else f"no answer within {PROBE_SECONDS:g} s"


def ask(address: str) -> str | None:
    """Sends one HEAD request through the configured proxies; None when anything that is no server error comes back."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PROBE_SECONDS):
            return None
    except urllib.error.HTTPError as error:
        return f"HTTP {error.code} {error.reason}" if error.code >= 500 else None
    except urllib.error.URLError as error:
        # Somebody answers; whether the certificate will do is for the hub's own client to say.
        return None if isinstance(error.reason, ssl.SSLCertVerificationError) else str(error.reason)
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__


def cached(repo: str) -> Path:
    """The snapshot of ``repo`` in the hub's standard cache; no socket is opened.

    Raises:
        AssetError: There is none, or it is not complete.
    """
    return _snapshot(repo, local_only=True)


def download(repo: str) -> Path:
    """The folder of ``repo``, from the hub into the hub's standard cache.

    Raises:
        AssetError: The hub may not be asked, cannot be reached, does not have it, or has no safetensors weights.
    """
    if forbidden := offline():
        raise AssetError(f"not asked, {forbidden} is set")
    if why := unreachable(endpoint()):
        raise AssetError(f"{endpoint()} cannot be reached ({why})")
    return _snapshot(repo, local_only=False)


def tokenizer_files(repo: str) -> Path:
    """The folder of the files of ``repo`` but its weights: from the cache, else from the hub.

    Raises:
        AssetError: They are in neither; the message says why.
    """
    try:
        return _snapshot(repo, local_only=True, weights=False)
    except AssetError as error:
        forbidden = offline()
        why = f"not asked, {forbidden} is set" if forbidden else unreachable(endpoint())
        if why:
            raise AssetError(
                f"no tokenizer {repo!r}: {error}; hub: {why}. Give a local folder with the tokenizer's files"
            ) from error
    return _snapshot(repo, local_only=False, weights=False)


def weight_files(folder: Path) -> list[Path]:
    """``model.safetensors`` and all shards of its index, as far as there are any; they need not be there.

    Raises:
        AssetError: The index is damaged, or names a file elsewhere.
    """
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    names = {whole.name} if whole.is_file() else set()
    if index.is_file():
        found = read_json(index, expected=dict, error=AssetError).get("weight_map")
        if not isinstance(found, dict) or not found:
            raise AssetError(f"{index} is damaged: it has no map of tensors to files (weight_map)")
        for name in found.values():
            if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
                raise AssetError(f"{index} names {name!r}, which is no safetensors file beside it; do not trust it")
        names |= set(found.values())
    return [folder / name for name in sorted(names)]


def weights_problem(folder: Path) -> str | None:
    """Why ``folder`` has no usable weights; None when it has ``model.safetensors`` or all shards of its index."""
    try:
        files = weight_files(folder)
    except AssetError as error:
        return str(error)
    if missing := sorted(file.name for file in files if not file.is_file()):
        return f"{folder} lacks the weight files {missing}"
    if files:
        return None
    if found := pickles(folder):
        return f"{folder} has weights only as {found[0]}, a pickle, which can run code when read and is never loaded"
    return f"{folder} has no model.safetensors (weights in other forms, such as pickles, are never loaded)"


def pickles(folder: Path) -> list[str]:
    """Files of weights that are never loaded."""
    return sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))


def snapshot(
    repo: str,
    patterns: list[str],
    *,
    without: list[str] | None = None,
    local_only: bool,
    revision: str | None = None,
    repo_type: Literal["model", "dataset"] = "model",
) -> Path:
    """The folder of the files of ``repo`` that fit ``patterns`` and none of ``without``, from the hub or its cache.

    ``revision`` is a commit, None the newest one.

    Raises:
        AssetError: They are not there; the message is the reason alone.
    """
    from huggingface_hub import snapshot_download

    address = None if local_only else endpoint()
    try:
        return Path(
            snapshot_download(
                repo,
                repo_type=repo_type,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=without,
                local_files_only=local_only,
                endpoint=address,
            )
        )
    except Exception as error:  # whatever the client in use raises (httpx, requests, its own): the reason is reported
        raise AssetError(f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}") from error


def _snapshot(repo: str, *, local_only: bool, weights: bool = True) -> Path:
    where = "the hub's cache" if local_only else endpoint()
    without = _IGNORE if weights else [*_IGNORE, "*.safetensors", "*.safetensors.index.json"]
    try:
        folder = snapshot(repo, _ALLOW, without=without, local_only=local_only)
    except AssetError as error:
        raise AssetError(f"{repo} in {where}: {'not there' if local_only else error}") from error
    if not weights:
        return folder
    if not (folder / "config.json").is_file():
        raise AssetError(f"{repo} in {where}: no config.json")
    if problem := weights_problem(folder):
        raise AssetError(f"{repo} in {where}: {problem}")
    return folder
