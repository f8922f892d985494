"""What all encoders share: names for specs, how images are prepared, weights in few bits, nothing drawn in vain."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL.Image import Image, Resampling
from PIL.Image import new as new_image
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from typing_extensions import Self

from vlkit.errors import AssetError, UnknownName, VlkitError
from vlkit.registry import Registry
from vlkit.spec.parts import EncoderSpec, TiledImage
from vlkit.types import ImageFacts

_S = TypeVar("_S", bound=EncoderSpec)

_CLEAR: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError, TypeError, ImportError, SafetensorError)
_LARGEST_SIDE = 8192
_LONGEST = 600  # characters of another library's message


def said(error: Exception) -> str:
    """What an error says in one line, with its kind where that is needed to understand it."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text:  # libraries say how to allow it
        return "it needs the custom code that comes with it, which vlkit never runs; take a model that needs none"
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return text if isinstance(error, _CLEAR) and text else f"{type(error).__name__}: {text}".removesuffix(": ")


@contextmanager
def foreign_errors(what: str, *, then: str = "", error: type[VlkitError] = AssetError) -> Iterator[None]:
    """Makes one error of whatever libraries raise on missing, damaged, strange or unsafe files; ours pass.

    Raises:
        VlkitError: Of the kind ``error``: what failed, why, and ``then``.
    """
    try:
        yield
    except VlkitError:
        raise
    except Exception as why:  # files from elsewhere can make a library raise anything
        raise error(f"{what}: {said(why)}{then}") from why


class ImageTransform:
    """A library's own preprocessing of one image, deterministic; its ``repr`` says all of it and serves as a cache key.

    ``steps`` makes float32 pixels_CHW of an RGB image; ``settings`` are all that decides the result: library, sizes,
    crop, interpolation, mean, std.
    """

    def __init__(self, steps: Callable[[Image], Tensor], settings: Mapping[str, Any]) -> None:
        self.steps = steps
        self.settings = dict(settings)

    def __call__(self, image: Image) -> Tensor:
        """The image as float32 pixels_CHW; images of other modes are converted to RGB first."""
        return self.steps(image if image.mode == "RGB" else image.convert("RGB"))

    def __repr__(self) -> str:
        return f"ImageTransform({json.dumps(self.settings, sort_keys=True, ensure_ascii=False, default=str)})"


def resize_to_square(image: Image, *, size: int) -> Tensor:
    """An RGB image as pixels_CHW in [-1, 1] (mean = std = 0.5), whatever its aspect ratio; bicubic, antialiased."""
    small = image.resize((size, size), Resampling.BICUBIC)
    pixels_HWC = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(size, size, 3)
    return pixels_HWC.permute(2, 0, 1).float() / 127.5 - 1


# transformers puts guarded wrappers of its own in the place of torch's functions while it builds
_INITIALISERS = ("torch.nn.init", "transformers.initialization")
_DRAWS = frozenset(
    ("normal_", "uniform_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_")
)


class _SkipInit(TorchFunctionMode):
    """Turns the functions that draw first weights into the identity; what is computed or constant stays.

    Methods of tensors of the same names are left alone: ``trunc_normal_`` draws by them until all values are in range,
    and without them would never end.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) in _INITIALISERS and func.__name__ in _DRAWS:
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def weightless(*, saved: bool, empty: bool) -> AbstractContextManager[Any]:
    """Builds fast where the weights are not wanted.

    ``empty`` builds on the meta device. ``saved`` leaves parameters unset, because a state dict is loaded over all of
    them next; buffers that no state dict holds are computed as usual, which is why this does not use the meta device.
    """
    if empty:
        return torch.device("meta")
    return _SkipInit() if saved else nullcontext()


def hold(module: nn.Module, spec: EncoderSpec | TiledImage) -> None:
    """Brings parameters and saved buffers to the precision of a spec.

    Buffers that no state dict has (rates of rotary positions, masks) stay exact.
    """
    if spec.dtype == "float32":
        return
    saved = module.state_dict(keep_vars=True)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if name in saved and tensor.is_floating_point():  # what quantised weights have beside them is neither
            tensor.data = tensor.data.to(getattr(torch, spec.dtype))


def taken(pixels_BCHW: Tensor, module: nn.Module) -> Tensor:
    """Pixels in the precision of the weights that read them."""
    return pixels_BCHW.to(next(weight.dtype for weight in module.parameters() if weight.is_floating_point()))


def given(features: Tensor, spec: EncoderSpec) -> Tensor:
    """Features in float32 where the weights are held in less."""
    return features if spec.dtype == "float32" else features.float()


def image_facts(encoder: Any, *, extra_tokens: int, mean: Sequence[float], std: Sequence[float]) -> ImageFacts:
    """What is known of an encoder, see ``types.ImageFacts``."""
    tokens = encoder.num_tokens(encoder.image_size)
    side = math.isqrt(tokens)
    return ImageFacts(
        width=encoder.width,
        token_width=encoder.token_width,
        image_size=encoder.image_size,
        tokens=tokens,
        side=side if side**2 == tokens else None,
        extra_tokens=extra_tokens,
        mean=tuple(mean),
        std=tuple(std),
    )


class OwnEncoder(nn.Module):
    """An encoder of vlkit's own: its spec says all of it, and ``pooled_and_states`` gives all that is asked of it."""

    @classmethod
    def build(cls, spec: Any, *, saved: Path | None = None, empty: bool = False) -> Self:
        """Random weights from torch's global generator; nothing is read from ``saved``."""
        with weightless(saved=saved is not None, empty=empty):
            return cls(spec)

    def pooled_and_states(self, inputs: Any, /) -> tuple[Tensor, Tensor]:
        """features_BD and the states before pooling, in one pass."""
        raise NotImplementedError

    def forward(self, inputs: Any) -> Tensor:
        """features_BD."""
        return self.pooled_and_states(inputs)[0]

    def save_config(self, folder: Path) -> None:
        """Nothing to write."""


class LibraryImageEncoder(nn.Module):
    """An image encoder of another library, which need not say how many tokens it gives."""

    def num_tokens(self, size: int) -> int:
        """N of ``tokens`` for a square image, found by running the encoder on shapes alone.

        Raises:
            VlkitError: It takes no images of this size.
        """
        return int(self.on_shapes(size, "tokens").shape[1])

    def on_shapes(self, size: int, method: str) -> Any:
        """What a method gives for one square image, as shapes alone."""
        shapes: dict[int, Any] = {id(x): torch.empty_like(x, device="meta") for x in self.buffers()}
        shapes |= {id(x): nn.Parameter(torch.empty_like(x, device="meta"), False) for x in self.parameters()}
        twin = copy.deepcopy(self, shapes)  # what is in the memo is not copied
        what = f"{type(self).__name__} takes no images of {size}x{size} pixels"
        with foreign_errors(what, error=VlkitError), torch.no_grad():
            return getattr(twin, method)(torch.empty(1, 3, size, size, device="meta"))


def check_patches(image_size: int | None, patch_size: int | None, *, where: str) -> None:
    """Some architectures drop the last pixels in silence, others stop in the middle of a run: refuse before either.

    Raises:
        VlkitError: The wanted size is no multiple of the patch size.
    """
    if image_size is not None and patch_size is not None and image_size % patch_size:
        nearest = max(1, round(image_size / patch_size)) * patch_size
        raise VlkitError(
            f"{where}: image_size = {image_size} is no multiple of its patch size {patch_size}; nearest: {nearest}"
        )


def check_side(side: int, *, where: str) -> None:
    """Preprocessing that came with weights must not ask for images that no memory holds.

    Raises:
        VlkitError: It resizes to nothing, or to more than any model reads.
    """
    if not 1 <= side <= _LARGEST_SIDE:
        raise VlkitError(f"{where}: its preprocessing resizes images to {side} pixels; allowed: 1 to {_LARGEST_SIDE:,}")


def check_transform(transform: ImageTransform, *, where: str) -> None:
    """Preprocessing that came with weights must work: it is tried on a small image.

    Raises:
        AssetError: It fails, or gives something else than finite pixels_CHW of three channels.
    """
    if torch.get_default_device().type == "meta":
        return
    with foreign_errors(f"{where}: its preprocessing does not work"):
        pixels_CHW = transform(new_image("RGB", (16, 16), "gray"))
    if pixels_CHW.ndim != 3 or len(pixels_CHW) != 3 or not pixels_CHW.isfinite().all():
        raise AssetError(
            f"{where}: its preprocessing gives {list(pixels_CHW.shape)} or values that are not finite, and not three "
            f"channels of pixels; see mean and std in its configuration"
        )


_BEHIND = 2**32  # more than any text has tokens


def compact(ids_BL: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Moves the real tokens of every row to its front: left, right and inner padding all give the same input."""
    places_L = torch.arange(mask_BL.shape[1], device=mask_BL.device)
    order_BL = torch.where(mask_BL > 0, places_L, places_L + _BEHIND).argsort(dim=1)  # no ties: ONNX has no stable sort
    return ids_BL.gather(1, order_BL), mask_BL.gather(1, order_BL)


def moved(rows_BLE: Tensor, order_BL: Tensor) -> Tensor:
    """The places of every row in another order."""
    return rows_BLE.gather(1, order_BL.unsqueeze(-1).expand(-1, -1, rows_BLE.shape[-1]))


def build_part(kinds: Registry, spec: EncoderSpec | TiledImage, *, saved: Path | None, empty: bool) -> Any:
    """The part of a spec in eval mode, its weights in the precision that the spec asks for."""
    part = kinds.get_object(spec.kind).build(spec, saved=saved, empty=empty)
    hold(part, spec)
    return part.eval()


def spec_by_name(name: str, *, kinds: Registry, named: Mapping[str, type[_S]], **options: Any) -> _S:
    """The spec that ``KIND:NAME`` stands for; ``tiny`` stands alone.

    ``named`` are the specs of the kinds that have names; of ``options``, None and what such a spec does not have are
    left out.

    Raises:
        UnknownName: There is no such kind.
        VlkitError: The name after the colon is missing, or the kind has no names.
    """
    what = kinds.kind
    kind, colon, rest = name.partition(":")
    if kind not in kinds:
        raise UnknownName(what, name if not colon else kind, allowed=kinds, hint=kinds.hint)
    if kind == "tiny":
        if rest:
            raise VlkitError(f"{what} {name!r}: tiny takes no name; write 'tiny'")
    elif not rest:
        raise VlkitError(f"{what} {name!r} lacks a name after the colon. {kinds.hint}")
    if kind not in named:
        raise VlkitError(f"a {kind} encoder has no weights to name; build it from its spec (vlkit.spec.parts)")
    fields = named[kind].model_fields
    values = {key: value for key, value in options.items() if value is not None and key in fields}
    return named[kind](**values if kind == "tiny" else {"name": rest, **values})
