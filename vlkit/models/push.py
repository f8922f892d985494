"""A model folder on a hub: what may not be passed on is said before anything leaves this machine."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from vlkit.errors import AssetError, VlkitError
from vlkit.models.card_text import UNKNOWN
from vlkit.models.folder import read_base, read_spec, save
from vlkit.models.locate import kind_of
from vlkit.parts.assets import ASSETS, hub
from vlkit.paths import local_path
from vlkit.spec.base import Spec
from vlkit.types import Model

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_ALLOW = [
    "README.md", "LICENSE*", "NOTICE*", "TERMS*", "*.yaml", "*.json", "*.txt", "*.jinja", "*.model", "*.safetensors",
    "*.onnx", "*.onnx.data",
]  # fmt: skip
_ONNX = "onnx_config.json"


@dataclass(frozen=True)
class Pushed:
    """Where a model went: the address of its page, and the commit that holds it."""

    url: str
    commit: str


def push_to_hub(
    model: Model | str | PathLike[str],
    repo: str,
    *,
    private: bool = True,
    branch: str | None = None,
    message: str = "",
    licenses_checked: bool = False,
) -> Pushed:
    """Puts a model on the hub, its card and all that loads it again with ``vlkit.load("hf:ORG/NAME")``.

    The hub is that of ``$HF_ENDPOINT``, the login that of ``hf auth login`` or ``$HF_TOKEN``. Pickles, runs and other
    files in the folder stay here.

    Args:
        model: A model, or the folder of one as ``save`` or ``export`` wrote it.
        repo: ``ORG/NAME``; made if it is not there.
        private: Whether only you see what is made; a repository that is there keeps what it is.
        branch: Another branch than the main one; it must be there.
        message: Of the commit.
        licenses_checked: You may pass on parts whose license asks for more than to be named, or is not known here.

    Raises:
        VlkitError: It is no model folder, its card is damaged, adapters alone that nobody else could load, a part that
            may not just be passed on, or the hub says no.
    """
    if not _REPO.fullmatch(repo):
        raise VlkitError(f"{repo!r} is no name on the hub; it reads ORG/NAME")
    if isinstance(model, str | PathLike):
        folder = local_path(model)
        check_folder(folder)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            folder = save(model, Path(scratch) / "model")
            return push_to_hub(folder, repo, private=private, branch=branch, message=message,
                               licenses_checked=licenses_checked)  # fmt: skip
    open_questions = license_questions(folder)
    if open_questions and not licenses_checked:
        raise VlkitError(
            "not pushed, for parts of the model are of others:\n"
            + "\n".join(f"  {question}" for question in open_questions)
            + "\nwhere you may pass them on, say so with --yes (licenses_checked=True)"
        )
    if forbidden := hub.offline():
        raise AssetError(f"nothing was pushed: {forbidden} is set")
    return _upload(folder, repo, private=private, branch=branch, message=message or "A model made with vlkit")


def check_folder(folder: Path) -> None:
    """Refuses what nobody could load from a hub.

    Raises:
        VlkitError: No model folder, no card, a damaged one, or adapters for a model of this machine.
    """
    kind = kind_of(folder)
    if kind is None and not (folder / _ONNX).is_file():
        raise VlkitError(f"{folder} is no model folder; save one with vlkit.save, or name the folder model/ of a run")
    card = folder / "README.md"
    if not card.is_file():
        raise VlkitError(f"{folder} has no model card (README.md); save the model again, or write one")
    parts = card.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
    try:
        front = YAML(typ="safe").load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except YAMLError as error:
        raise VlkitError(f"{card}: what stands between the lines of --- is no YAML: {error}") from error
    if not isinstance(front, dict) or not front.get("library_name"):
        raise VlkitError(
            f"{card} does not begin with what hubs read (--- / library_name: vlkit / ---); save the model again, or "
            f"add it"
        )
    base = read_base(folder) if kind == "vlkit" else None
    if base is not None and local_path(base[0]).is_dir():
        raise VlkitError(
            f"{folder} holds adapters alone, for the model {base[0]} of this machine, which nobody else has: push that "
            f"first and save the adapters of the pushed one, or merge them: vlkit merge {folder} --out merged"
        )


def license_questions(folder: Path) -> list[str]:
    """What the license of each part asks before it is passed on; [] where all may be, if they are named.

    vlkit's own folders name their parts in the spec, folders for other libraries in the table of their card.
    """
    questions = []
    if kind_of(folder) != "vlkit":
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
        asked = {asset.license: asset.terms for asset in ASSETS if asset.terms}
        questions = [f"{name}: {terms}" for name, terms in asked.items() if name in card]
        return questions + ([f"a part: its license is not known here; {UNKNOWN}"] if f"| {UNKNOWN} |" in card else [])
    for where, kind, name in _named(read_spec(folder)):
        asset = next((one for one in ASSETS if one.library == kind and name in (one.name, *one.aliases)), None)
        if asset is None:
            questions.append(f"{where} = {kind}:{name}: its license is not known here; {UNKNOWN}")
        elif asset.terms:
            questions.append(f"{where} = {kind}:{name} ({asset.license}): {asset.terms}")
    return questions


def _named(spec: Spec, where: str = "model") -> Iterator[tuple[str, str, str]]:
    """Place, library and name of each pretrained part of a spec."""
    name, kind = getattr(spec, "name", None), getattr(spec, "kind", None)
    if isinstance(name, str) and isinstance(kind, str) and getattr(spec, "pretrained", True):
        yield where, kind, name
    for key, value in vars(spec).items():
        if isinstance(value, Spec):
            yield from _named(value, f"{where}.{key}")


def _upload(folder: Path, repo: str, *, private: bool, branch: str | None, message: str) -> Pushed:
    from huggingface_hub import HfApi

    api: Any = HfApi(endpoint=hub.endpoint())
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo, folder_path=str(folder), commit_message=message, revision=branch, allow_patterns=_ALLOW
        )
    except Exception as error:  # whatever the client in use raises
        status = getattr(getattr(error, "response", None), "status_code", None)
        hint = "; log in with: hf auth login" if status in (401, 403) or "token" in str(error).lower() else ""
        first = (str(error).strip().splitlines() or [""])[0]
        raise VlkitError(f"{hub.endpoint()} did not take {repo}: {type(error).__name__}: {first}{hint}") from error
    return Pushed(f"{hub.endpoint()}/{repo}", str(done.oid))
