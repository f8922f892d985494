"""Model folders: a spec, weights, the encoders' own files and a card, all that ``load`` needs."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import torch
from pydantic import Field, ValidationError

from vlkit.adapt.inject import base_name
from vlkit.errors import SpecError, VlkitError, some
from vlkit.files import atomic_folder
from vlkit.models.digest import weights_digest
from vlkit.models.locate import SPEC, Located, locate
from vlkit.models.registry import add_adapters, build, build_meta, module_of
from vlkit.models.trainable import ADAPTER, adapter_specs, part_of
from vlkit.models.weights import INDEX, WEIGHTS, assign_weights, plain_state, read_weights, uncompiled, write_weights
from vlkit.outputs import check_replaceable
from vlkit.parts import assets
from vlkit.parts.assets import hub
from vlkit.parts.configs import read_settings
from vlkit.parts.hf_image_text import answers_about_images
from vlkit.parts.weight_files import Shapes, read_headers, shapes_of, within
from vlkit.paths import local_path
from vlkit.registry import Registry
from vlkit.spec.base import Spec
from vlkit.spec.load import dump_yaml, read_document
from vlkit.spec.model import ModelSpec, SavedSpec
from vlkit.spec.parts import Dtype
from vlkit.spec.problems import problems_of
from vlkit.types import Model, SavesConfig, as_module
from vlkit.version import __version__

M = TypeVar("M")
FORMAT = 2
"""Of model folders: 2 since vlkit 0.4."""
_DTYPES: dict[torch.dtype, Dtype] = {getattr(torch, name): name for name in get_args(Dtype)}
_MOST_BASES = 16  # adapters on adapters
_HEADER = "# A model folder of vlkit, for vlkit.load().\n"
FOREIGN = Registry(
    "kind of model",
    {
        "open_clip": "vlkit.models.dual_encoder.build:load_open_clip",
        "hf": "vlkit.models.dual_encoder.build:load_hf",
        "hf blip-2": "vlkit.models.vision_language.from_transformers:load_blip2",
        "hf llava": "vlkit.models.vision_language.from_transformers:load_llava",
        "hf whole": "vlkit.models.image_text_to_text.build:load_whole",
        "tiny": "vlkit.models.dual_encoder.build:load_tiny",
    },
)
"""Whose loader reads the models of other libraries (``locate.Located``); of transformers' ones a `model_type` may have
its own, others that answer questions about images are taken whole, and all others are two towers."""


class _SpecFile(Spec):
    """What spec.yaml holds."""

    format: int
    """How the folder is laid out."""
    vlkit: str
    """The version that wrote it."""
    model: ModelSpec
    """What the folder's weights are of; of kind saved, they are only those that differ from the model named there."""
    base: str | None = None
    """Digest of that model's weights."""
    dtypes: dict[str, Dtype] = Field(default_factory=dict)
    """Precision in which that model's parts were held, where it is another than the one that it is stored in."""


def save(
    model: Model,
    folder: str | PathLike[str],
    *,
    card: str | None = None,
    dtype: torch.dtype | None = None,
    adapters_only: bool = False,
) -> Path:
    """Writes a model folder; an older one of the same name is replaced only when the new one is whole.

    Args:
        model: Every part needs a ``.spec``.
        folder: A new place, an empty folder, or an older model folder.
        card: The README.md; None writes one from what the model itself tells.
        dtype: Store floating-point weights in this type; None keeps theirs.
        adapters_only: Write only the adapters, and what else differs from the model that this one was loaded from
            (``model.loaded_from``); ``load`` needs that model again.

    Raises:
        VlkitError: A part has no spec, the folder holds something else, or the disk is full; adapters alone are wanted
            of a model that was not loaded.
    """
    target = local_path(folder)
    check_target(target)
    model = uncompiled(model)
    if adapters_only:
        _check_apart(target, model.loaded_from)
        file, state = _difference(model)
    else:
        file, state = _SpecFile(format=FORMAT, vlkit=__version__, model=model.spec), plain_state(as_module(model))
    with atomic_folder(target) as scratch:
        write_weights(state, scratch, dtype=dtype)
        for name, part in {} if adapters_only else model.parts().items():
            if isinstance(part := uncompiled(part), SavesConfig):
                (scratch / name).mkdir()
                part.save_config(scratch / name)
                with contextlib.suppress(OSError):
                    (scratch / name).rmdir()  # parts that have nothing to tell leave no folder
        if card is None:
            home = module_of(model.spec.kind, "card")
            card = "" if home is None else home.render_card(model)
        (scratch / "README.md").write_text(card, encoding="utf-8")
        (scratch / SPEC).write_text(_HEADER + dump_yaml(file), encoding="utf-8")
    return target


def _difference(model: Model) -> tuple[_SpecFile, dict[str, torch.Tensor]]:
    """What makes ``model`` of the model that it was loaded from."""
    if model.loaded_from is None:
        raise VlkitError(
            "adapters_only = True needs the model that the adapters were added to, and this one was not loaded: load "
            "its base with vlkit.load before adapters are added, set model.loaded_from, or save all of it"
        )
    base: Model = load(model.loaded_from)
    spec = SavedSpec(
        path=model.loaded_from,
        adapters={name: one for name, one in adapter_specs(model).items() if name not in adapter_specs(base)},
    )
    file = _SpecFile(format=FORMAT, vlkit=__version__, model=spec, base=weights_digest(as_module(base)))
    known = {base_name(name): tensor for name, tensor in as_module(base).state_dict().items()}
    held = plain_state(as_module(model))
    file.dtypes.update(_other_dtypes(held, known))
    if add_adapters(base, spec.adapters).spec != model.spec:
        raise VlkitError(
            f"the model differs from {model.loaded_from} in more than adapters and weights; save all of it "
            f"(adapters_only = False)"
        )
    return file, {
        name: tensor
        for name, tensor in held.items()
        if part_of(name).endswith(ADAPTER)
        or not _same(tensor.detach().cpu(), _as_held(base_name(name), known[base_name(name)], file.dtypes))
    }


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _other_dtypes(held: Mapping[str, torch.Tensor], known: Mapping[str, torch.Tensor]) -> dict[str, Dtype]:
    """The parts whose weights are all held in one type, and it is not that of the stored ones."""
    found: dict[str, set[tuple[torch.dtype, torch.dtype]]] = {}
    for name, tensor in held.items():
        stored = known.get(base_name(name))
        if stored is not None and stored.ndim and stored.is_floating_point():
            found.setdefault(part_of(name), set()).add((tensor.dtype, stored.dtype))
    types = {part: next(iter(pairs)) for part, pairs in found.items() if len(pairs) == 1}
    return {part: _DTYPES[mine] for part, (mine, stored) in types.items() if mine != stored and mine in _DTYPES}


def _as_held(name: str, tensor: torch.Tensor, dtypes: Mapping[str, Dtype]) -> torch.Tensor:
    """A stored tensor of a base in the type that its part was held in."""
    dtype = dtypes.get(part_of(name))
    return tensor.to(getattr(torch, dtype)) if dtype and tensor.ndim and tensor.is_floating_point() else tensor


def load(
    name_or_path: str | PathLike[str],
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    base: str | PathLike[str] | None = None,
    expect: type[M] = Model,  # type: ignore[assignment]
) -> M:
    """A model in eval mode, ready to use; torch's random state is left as it was.

    Args:
        name_or_path: A folder of vlkit's, open_clip's or transformers'; ``open_clip:MODEL/TAG`` or
            ``open_clip:MODEL/FILE``; ``hf:ID`` or ``hf-hub:ORG/NAME``; ``tiny`` for a small random model.
        device: Where to put it; None is the CPU.
        dtype: Cast floating-point weights to this type; None takes them as stored.
        base: Of a folder that holds adapters only: where the model is that they were added to, if it is no longer where
            it was.
        expect: A class or protocol that the model must satisfy; by default any kind of model does.

    Raises:
        UnknownName: Nothing of this name.
        VlkitError: The files are missing, damaged, of a newer version, or do not belong together; or it is another kind
            of model than the one expected.
    """
    found = locate(str(name_or_path))
    with torch.random.fork_rng(devices=[]):
        if found.kind == "vlkit":
            model = _load_folder(Path(found.where), dtype, base=base)
        elif base is not None:
            raise VlkitError(f"{name_or_path} is a whole model, not adapters for one; leave base out")
        else:
            model = _reader(found)(found.where)
            if dtype is not None:
                assign_weights(as_module(model), as_module(model).state_dict(), dtype=dtype)
    if not isinstance(model, expect):
        raise VlkitError(
            f"{name_or_path} holds a model of kind {model.spec.kind}, which is no {_words(expect)} as is wanted here"
        )
    if model.loaded_from is None:  # adapters name the whole model below them
        folder = local_path(name_or_path)
        model.loaded_from = str(folder.resolve()) if folder.is_dir() else str(name_or_path)
    as_module(model).eval().to(device)
    return model


def _reader(found: Located) -> Any:
    """Who reads a model of another library, told by its configuration; no code of its folder is run."""
    if found.kind == "hf":
        config = assets.resolve(found.where, library="hf") / "config.json"
        settings = read_settings(config)
        own = f"hf {settings.get('model_type')}"
        if own not in FOREIGN:
            own = "hf whole" if answers_about_images(settings) else "hf"
        return FOREIGN.get_object(own)
    return FOREIGN.get_object(found.kind)


def load_meta(name_or_path: str | PathLike[str]) -> Model:
    """A model's shapes on the meta device; only other libraries' models are loaded for them.

    Raises:
        UnknownName: Nothing of this name.
        VlkitError: The files are missing, damaged or of a newer version.
    """
    found = locate(str(name_or_path))
    if found.kind != "vlkit":
        model: Model = load(name_or_path)
        as_module(model).to("meta")
        return model
    folder = Path(found.where)
    file = _read_spec_file(folder)
    _check_bases(folder, file)
    if isinstance(file.model, SavedSpec):
        return build_meta(file.model, saved=folder)
    with within(read_headers(hub.weight_files(folder)), where=folder):
        return build_meta(file.model, saved=folder)


def read_spec(folder: Path) -> ModelSpec:
    """The spec in a model folder; of kind saved where the folder holds adapters only.

    Raises:
        VlkitError: It is missing or damaged, or has keys of a newer version.
    """
    return _read_spec_file(folder).model


def read_base(folder: Path) -> tuple[str, str | None] | None:
    """Of a folder of adapters alone: the model that they are for, and the digest of its weights; else None.

    Raises:
        VlkitError: See ``read_spec``.
    """
    file = _read_spec_file(folder)
    return (file.model.path, file.base) if isinstance(file.model, SavedSpec) else None


def _read_spec_file(folder: Path) -> _SpecFile:
    path = folder / SPEC
    tree = read_document(path)
    plain = tree.plain()
    if isinstance(plain, dict) and "model" in plain and "format" not in plain:
        raise VlkitError(
            f"{folder} is a model folder of vlkit {plain.get('vlkit', '0.3 or older')}, which this version cannot "
            f"read: train or save the model again, or use it with: pip install 'vlkit<0.4'"
        )
    if isinstance(plain, dict) and isinstance(plain.get("format"), int) and plain["format"] != FORMAT:
        what = "run: pip install -U vlkit" if plain["format"] > FORMAT else "train or save the model again"
        raise VlkitError(
            f"{folder} is a model folder of format {plain['format']}, and this version reads format {FORMAT}: {what}"
        )
    try:
        return _SpecFile.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        raise VlkitError(str(SpecError(problems_of(error, tree, _SpecFile))) + _newer(plain.get("vlkit"))) from error


def _words(expected: type) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", expected.__name__).lower()


def _newer(version: object) -> str:
    if not isinstance(version, str) or _numbers(version) <= _numbers(__version__):
        return ""
    return f"\nIt was saved by vlkit {version}, this is vlkit {__version__}; run: pip install -U vlkit"


def _numbers(version: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", version)[:3]]


def _load_folder(folder: Path, dtype: torch.dtype | None, *, base: str | PathLike[str] | None) -> Model:
    file, state = _read_spec_file(folder), read_weights(folder)
    if isinstance(file.model, SavedSpec):
        _check_bases(folder, file, base=base)
        model = _build_on_base(folder, file, shapes_of(state), base=base)
        whole = as_module(model).state_dict()
        if missing := [name for name in whole if part_of(name).endswith(ADAPTER) and name not in state]:
            raise VlkitError(
                f"{folder} lacks {len(missing)} tensors of its adapters ({some(missing, most=3)}); copy or save it "
                f"again"
            )
        state = whole | state
    elif base is not None:
        raise VlkitError(f"{folder} holds a whole model, not adapters for one; leave base out")
    else:
        try:
            with within(shapes_of(state), where=folder):
                model = build(file.model, saved=folder)
        except OSError as error:
            raise VlkitError(
                f"the model folder {folder} is not complete: {error}; copy or save the model again"
            ) from error
    assign_weights(as_module(model), state, dtype=dtype, where=folder)
    return model


def _build_on_base(folder: Path, file: _SpecFile, shapes: Shapes, *, base: str | PathLike[str] | None) -> Model:
    named = cast("SavedSpec", file.model)
    spec = named if base is None else named.model_copy(update={"path": str(base)})
    try:
        model: Model = load(spec.path)
    except VlkitError as error:
        raise VlkitError(
            f"{folder} holds adapters only, for the model {spec.path}: {error}; say where it is: load(..., base=...)"
        ) from error
    if file.base is not None and weights_digest(as_module(model)) != file.base:
        raise VlkitError(
            f"{folder} holds adapters only, and {spec.path} no longer is the model that they were trained on "
            f"(its weights differ); say where that is: load(..., base=...)"
        )
    if file.dtypes:
        stored = as_module(model).state_dict()
        held = {name: _as_held(name, tensor, file.dtypes) for name, tensor in stored.items()}
        assign_weights(as_module(model), held)
    with within(shapes, where=folder):
        return add_adapters(model, spec.adapters)


def _check_apart(target: Path, base: str | None) -> None:
    """Adapters must not take the place of the model that they are of."""
    folder = local_path((base or "").partition(":")[2] or base or "")
    if base and folder.is_dir() and folder.resolve().is_relative_to(target.resolve()):
        raise VlkitError(
            f"{target} holds the model that the adapters were added to, and nothing but adapters would be left of it; "
            f"choose another folder"
        )


def _check_bases(folder: Path, file: _SpecFile, *, base: str | PathLike[str] | None = None) -> None:
    """Adapters may stand on adapters, but not on themselves."""
    line = [folder.resolve()]
    while isinstance(file.model, SavedSpec):
        try:
            found = locate(file.model.path if base is None or len(line) > 1 else str(base))
        except VlkitError:
            return  # told where it is loaded
        if found.kind != "vlkit":
            return
        below = Path(found.where).resolve()
        if below in line or len(line) > _MOST_BASES:
            ring = " of ".join(str(one) for one in (*line, below)[:4])
            raise VlkitError(
                f"{folder} holds adapters only, and the model below them is never reached: adapters {ring}; say where "
                f"the whole model is: load(..., base=...)"
            )
        line.append(below)
        file = _read_spec_file(below)


def check_target(target: Path, *, inputs: Iterable[str] = ()) -> None:
    """Refuses to write a model where something else is than an older one; ``inputs`` are files that are read meanwhile.

    Raises:
        VlkitError: See ``outputs.check_replaceable``.
    """
    spec: Any = {}
    with contextlib.suppress(VlkitError):
        spec = read_document(target / SPEC).plain() if (target / SPEC).is_file() else {}
    ours = isinstance(spec, dict) and "vlkit" in spec and isinstance(spec.get("model"), dict)
    parts = spec["model"] if ours else ()
    names = (SPEC, "README.md", WEIGHTS, INDEX, "model-*-of-*.safetensors", *parts)
    check_replaceable(target, what="a model", made=lambda _: ours, names=names, inputs=inputs)
