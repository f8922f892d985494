"""What a weights file holds, read without running anything, and models built no larger than that."""

from __future__ import annotations

import math
import pickle
import re
import sys
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vlkit.errors import AssetError, VlkitError, some
from vlkit.parts.configs import largest, numbers

Shapes = Mapping[str, tuple[int, ...]]

_FACTORIES: frozenset[Callable[..., Any]] = frozenset(
    (torch.arange, torch.empty, torch.empty_strided, torch.eye, torch.full, torch.linspace, torch.ones, torch.rand,
     torch.randint, torch.randn, torch.zeros)
)  # fmt: skip
# A model has more than its file: masks, positions and rates that are computed, poolers that are not used, tied weights
# that are built twice.
_TIMES, _MORE_VALUES = 4, 1 << 26
_CALLS_PER_TENSOR, _MORE_CALLS = 16, 2_000


def read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in a weights file: safetensors, or a pickle of tensors alone.

    Libraries may fall back to pickles that run code when they fail with such a file; a file that was read here can be
    read by them without. Of NumPy's files nothing is told: they hold no code, and only models that are known read them.

    Raises:
        AssetError: It is missing, damaged, or holds more than tensors; or a tensor claims more than the file has.
    """
    try:
        if path.suffix in (".npz", ".npy"):
            return {}
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no dict
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # files from elsewhere can make a library raise anything
        raise AssetError(f"cannot read the weights {path}: {_why(error)}") from error
    tensors = dict(_tensors(found))
    size = path.stat().st_size
    for name, tensor in tensors.items():
        if tensor.numel() * tensor.element_size() > size:
            raise AssetError(f"{path}: {name} claims {tensor.numel():,} values, more than the file has")
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def read_headers(paths: Iterable[Path]) -> dict[str, tuple[int, ...]]:
    """Those of several files together; see ``read_header``."""
    return {name: shape for path in paths for name, shape in read_header(path).items()}


def read_tensors(path: Path, names: Collection[str]) -> dict[str, Tensor]:
    """The tensors of these names in a weights file that ``read_header`` has read, on the CPU; no others are."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name in names}  # noqa: SIM118 - no dict
    found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    return {name: tensor for name, tensor in _tensors(found) if name in names}


def fill(
    module: nn.Module, files: Iterable[Path], *, prefix: str = "", where: object, told_by: str = "configuration"
) -> None:
    """Puts weights from files that ``read_header`` reads into a module; they are exactly its own.

    Args:
        module: What is filled, in place.
        files: They may hold other tensors, too, whose names do not begin with ``prefix``.
        prefix: What the names have before the module's own.
        where: Begins the message.
        told_by: What the module was built by, for messages.

    Raises:
        AssetError: A file cannot be read.
        VlkitError: Tensors are missing, too many, or of other shapes.
    """
    headers = {file: read_header(file) for file in files}
    found = {name: (file, shape) for file, inside in headers.items() for name, shape in inside.items()}
    stored = {name.removeprefix(prefix): one for name, one in found.items() if name.startswith(prefix)}
    wanted = module.state_dict()
    shapes = shapes_of(wanted)
    wrong = [name for name in wanted.keys() | stored.keys() if stored.get(name, (None, None))[1] != shapes.get(name)]
    if wrong:
        raise VlkitError(
            f"{where}: its weights are not those of its {told_by} ({len(wrong)} tensors, such as "
            f"{some(sorted(f'{prefix}{name}' for name in wrong), most=2)}); get the folder again, all of it"
        )
    with torch.no_grad():
        for file in headers:
            names = {f"{prefix}{name}" for name, (home, _) in stored.items() if home == file}
            for name, tensor in read_tensors(file, names).items():
                wanted[name.removeprefix(prefix)].copy_(tensor)


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Those of tensors that are read already."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


@contextmanager
def within(shapes: Shapes, *, where: object, settings: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Builds no model inside that is much larger than weights of these shapes.

    Configurations and weights come from elsewhere together and need not agree: the sizes in one are believed as far as
    the other bears them out, before memory is taken. Without shapes everything may be built.

    ``where`` begins the message; ``settings`` are the configuration, for what can be told from it at once.

    Raises:
        VlkitError: The model would be larger.
    """
    if not shapes:
        yield
        return
    if settings:
        _check_layers(shapes, settings, where)
    with _Within(shapes, where=where, sizes=largest(settings or {})):
        yield


def _check_layers(shapes: Shapes, settings: Mapping[str, Any], where: object) -> None:
    for key, value in numbers(settings).items():
        if re.search(r"(layers?|depths?|blocks)$", key) and value > len(shapes):
            raise VlkitError(
                f"{where}: {key} = {value:,} in its configuration, and its weights hold {len(shapes)} tensors: they do "
                f"not belong together; get the folder again, all of it"
            )


def check_layers_used(names: Iterable[str], unused: Iterable[str], *, where: object) -> None:
    """Refuses a model that leaves out some of the layers of its weights, as fewer stand in its configuration.

    What is unused as a whole (a head, a decoder, another tower) is no such layer.

    Args:
        names: Of all tensors in the weights.
        unused: Of those that the model did not take.
        where: Begins the message.

    Raises:
        VlkitError: Some layers of a stack were taken and others were not.
    """
    left = set(unused)
    taken = {layer for name in names if name not in left for layer in _layers(name)}
    stacks = {stack for stack, _ in taken}
    cut = {layer for name in left for layer in _layers(name) if layer[0] in stacks and layer not in taken}
    if cut:
        stack = min(stack for stack, _ in cut)
        out, held = (sum(one == stack for one, _ in layers) for layers in (cut, cut | taken))
        raise VlkitError(
            f"{where}: its weights hold {held} layers of {stack}, and by its configuration the last {out} of them "
            f"would be left out; they do not belong together: get the folder again, all of it, or correct the number "
            f"of layers in the configuration"
        )


def _layers(name: str) -> Iterator[tuple[str, int]]:
    """The numbered modules that a tensor lies in: ``encoder.layer`` and 3 of ``encoder.layer.3.output.bias``."""
    for found in re.finditer(r"\.(\d+)(?=\.)", name):
        yield name[: found.start()], int(found[1])


class _Within(TorchFunctionMode):
    """Counts what is made, before it is."""

    def __init__(self, shapes: Shapes, *, where: object, sizes: str) -> None:
        super().__init__()
        self.held = sum(math.prod(shape) for shape in shapes.values())
        self.values_left = _TIMES * self.held + _MORE_VALUES
        self.calls_left = _CALLS_PER_TENSOR * len(shapes) + _MORE_CALLS
        self.where, self.sizes = where, sizes

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES:
            self.values_left -= _values(func, args, kwargs)
            self.calls_left -= 1
            if self.values_left < 0 or self.calls_left < 0:
                told = f" ({self.sizes})" if self.sizes else ""
                raise VlkitError(
                    f"{self.where}: its configuration{told} describes a model much larger than its weights, which hold "
                    f"{self.held:,} values; they do not belong together: get the folder again, all of it"
                )
        return func(*args, **kwargs)


def _values(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """How many values a call will make, found by making their shape alone."""
    plain = {key: value for key, value in kwargs.items() if key not in ("generator", "out", "pin_memory")}
    try:
        return int(func(*args, **{**plain, "device": "meta"}).numel())
    except (RuntimeError, TypeError) as error:
        # a size of more than 64 bits; of all else the call itself will say what is wrong
        return sys.maxsize if "verflow" in str(error) else 0


def _why(error: Exception) -> str:
    text = str(error).strip()
    if isinstance(error, pickle.UnpicklingError) and (named := re.search(r"GLOBAL (\S+)", text)):
        return (
            f"it is a pickle of more than tensors ({named[1]}), which can run code and is never loaded; write the "
            f"weights again as safetensors"
        )
    if "TorchScript" in text:
        return "it is a TorchScript program, which is code and is never loaded; write its weights as safetensors"
    if isinstance(error, SafetensorError):
        return f"it is damaged or no safetensors file ({text}); get it again"
    if isinstance(error, OSError | RuntimeError) and text and not text.startswith("[enforce fail"):
        return text.splitlines()[0]
    return "it is neither safetensors nor a pickle of tensors"


def _tensors(found: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of a state dict, or of one inside a checkpoint."""
    for name, value in found.items() if isinstance(found, Mapping) else ():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, Mapping):
            yield from _tensors(value, f"{prefix}{name}.")
