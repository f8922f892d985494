"""Diffusion pipelines that are told what to paint: Stable Diffusion by diffusers, from folders, frozen.

Shapes: B texts or images, M states of a text, E their width, c, h and w channels, height and width of latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from vlkit.errors import AssetError, MissingPackage, VlkitError
from vlkit.files import digest, sha256
from vlkit.parts.assets import hub
from vlkit.parts.building import foreign_errors
from vlkit.parts.configs import check_settings, read_settings
from vlkit.parts.hf_common import quiet
from vlkit.parts.tokenizers import load_tokenizer
from vlkit.parts.weight_files import read_headers, within
from vlkit.paths import local_path
from vlkit.registry import Registry
from vlkit.spec.diffusion import DiffusersFolderSpec, PaintingSpec, PipelineSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image

PIPELINES = Registry(
    "diffusion pipeline",
    {
        "diffusers": "vlkit.parts.diffusion_pipelines:DiffusersPipeline",
        "tiny": "vlkit.parts.tiny_diffusion:TinyPipeline",
    },
)
_KNOWN = "StableDiffusionPipeline"
_FOLDERS = ("unet", "vae", "text_encoder")  # that have weights


class Noised(NamedTuple):
    """What a denoiser is asked about: ``latents_Bchw`` with noise, and the steps that they stand at, ``steps_B``."""

    latents_Bchw: Tensor
    steps_B: Tensor


class Denoised(NamedTuple):
    """What it answers: the noise in the latents, and the outputs of its blocks from the first to the last."""

    noise_Bchw: Tensor
    features: list[Tensor]


class BasePipeline:
    """A frozen diffusion pipeline, read when it is first needed.

    It is no module: a model that has it neither saves nor counts its weights. Sizes are known before: ``count`` is M,
    ``width`` E of the states that its denoiser reads.
    """

    spec: Any
    width: int
    count: int

    def __init__(self) -> None:
        self._device = torch.device("cpu")
        self._loaded: Any = None

    @property
    def told(self) -> str:
        """What it is, in a few words."""
        return str(self.spec.kind)

    def _load(self) -> Any:
        """The pipeline of diffusers, on the CPU."""
        raise NotImplementedError

    @property
    def pipeline(self) -> Any:
        """The pipeline of diffusers.

        Raises:
            AssetError: It cannot be read, or is another one than it was.
        """
        if self._loaded is None:
            with torch.device("cpu"):
                self._loaded = self._load().to(self._device)
            for part in (self._loaded.unet, self._loaded.vae, self._loaded.text_encoder):
                part.eval().requires_grad_(False)
            self._loaded.set_progress_bar_config(disable=True)
        return self._loaded

    def to(self, device: torch.device) -> None:
        """Moves it, now or when it is read."""
        self._device = device
        if self._loaded is not None:
            self._loaded.to(device)

    @torch.no_grad()
    def english(self, texts: Sequence[str]) -> Tensor:
        """states_BME that its own text encoder gives, float32."""
        pipeline = self.pipeline
        found = pipeline.tokenizer(
            list(texts), padding="max_length", max_length=self.count, truncation=True, return_tensors="pt"
        )
        asked = getattr(pipeline.text_encoder.config, "use_attention_mask", False)
        mask_BL = found.attention_mask.to(self._device) if asked else None
        with torch.autocast(self._device.type, enabled=False):
            states_BME: Tensor = pipeline.text_encoder(found.input_ids.to(self._device), attention_mask=mask_BL)[0]
        return states_BME.float()

    def noised(self, seeds: Sequence[int]) -> Noised:
        """Latents of noise alone at random steps; each row depends on its seed and nothing else."""
        unet = self.pipeline.unet.config
        last = int(self.pipeline.scheduler.config.num_train_timesteps)
        rows = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = (1, unet.in_channels, unet.sample_size, unet.sample_size)
        latents_Bchw = torch.cat([torch.randn(shape, generator=row) for row in rows])
        steps_B = torch.cat([torch.randint(last, (1,), generator=row) for row in rows])
        return Noised(latents_Bchw.to(self._device), steps_B.to(self._device))

    def denoised(self, noised: Noised, states_BME: Tensor, *, features: bool = False) -> Denoised:
        """What the denoiser finds in latents when it is told these states; gradients reach the states.

        ``features`` keeps the outputs of its blocks.
        """
        unet = self.pipeline.unet
        kept: list[Tensor] = []
        with _outputs(unet, kept if features else None), torch.autocast(self._device.type, enabled=False):
            noise_Bchw = unet(noised.latents_Bchw.to(unet.dtype), noised.steps_B, states_BME.to(unet.dtype)).sample
        return Denoised(noise_Bchw.float(), [one.float() for one in kept])

    @torch.no_grad()
    def images(self, states_BME: Tensor, null_ME: Tensor, *, count: int, painting: PaintingSpec) -> list[Image]:
        """Images of texts, those of one text after those of another; noise is that of the seed, whatever the text.

        Args:
            states_BME: What the denoiser is told.
            null_ME: What it is told to get away from.
            count: How many of each; the first one's seed is the painting's.
            painting: How they are made.

        Raises:
            VlkitError: The pipeline cannot make them so.
        """
        found: list[Image] = []
        dtype = self.pipeline.unet.dtype
        rows = [(text, painting.seed + number) for text in range(len(states_BME)) for number in range(count)]
        for first in range(0, len(rows), painting.batch_size):
            texts, seeds = zip(*rows[first : first + painting.batch_size], strict=True)
            with foreign_errors("the diffusion pipeline cannot paint this", error=VlkitError):
                found += self.pipeline(
                    prompt_embeds=states_BME[list(texts)].to(self._device, dtype),
                    negative_prompt_embeds=null_ME.to(self._device, dtype).expand(len(texts), -1, -1),
                    generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                    num_inference_steps=painting.steps,
                    guidance_scale=painting.guidance,
                    height=painting.image_size,
                    width=painting.image_size,
                ).images
        return found


class DiffusersPipeline(BasePipeline):
    """A pipeline from a folder; of its files only those of known classes are read, and no code.

    A safety checker that it names is not read: nothing looks at the images.
    """

    def __init__(self, spec: DiffusersFolderSpec) -> None:
        super().__init__()
        self._given, self._folder = spec, local_path(spec.folder)
        self._found: str | None = None
        settings = {name: self._settings(name) for name in ("unet", "text_encoder")}
        width, count = (
            settings["unet"].get("cross_attention_dim"),
            settings["text_encoder"].get("max_position_embeddings"),
        )
        if not isinstance(width, int) or not isinstance(count, int):
            raise VlkitError(
                f"pipeline.folder: {self._folder}: cross_attention_dim of unet/config.json and max_position_embeddings "
                f"of text_encoder/config.json should be whole numbers; is it a Stable Diffusion pipeline?"
            )
        self.width, self.count = width, count

    @property
    def spec(self) -> DiffusersFolderSpec:
        """With the digest of its files."""
        return self._given.model_copy(update={"digest": self._given.digest or self._digest()})

    @property
    def told(self) -> str:
        """The folder."""
        return self._given.folder

    def _settings(self, name: str) -> dict[str, Any]:
        index = self._folder / "model_index.json"
        if not index.is_file():
            raise AssetError(
                f"pipeline.folder: there is no {index}; give a folder of a diffusers pipeline, or, of a saved model, "
                f"write in its spec.yaml where that folder is now"
            )
        found = read_settings(index).get("_class_name")
        if found != _KNOWN:
            raise VlkitError(f"pipeline.folder: {index}: _class_name = {found!r}; allowed: {_KNOWN!r}")
        return read_settings(self._folder / name / "config.json")

    def _files(self) -> list[Path]:
        return [file for name in _FOLDERS for file in sorted((self._folder / name).glob("*.safetensors"))]

    def _digest(self) -> str:
        if self._found is None:
            files = [*self._files(), *(self._folder / name / "config.json" for name in _FOLDERS)]
            self._found = digest({str(file.relative_to(self._folder)): sha256(file) for file in files})
        return self._found

    def _load(self) -> Any:
        diffusers = _diffusers()
        if self._given.digest and self._given.digest != (found := self._digest()):
            raise AssetError(
                f"pipeline.digest: {self._folder} is not the pipeline that this model was made with "
                f"({self._given.digest}, here {found}); get that one"
            )
        from transformers import CLIPTextModel

        dtype = getattr(torch, self._given.dtype)
        parts = {
            "unet": self._part("unet", diffusers.UNet2DConditionModel, torch_dtype=dtype),
            "vae": self._part("vae", diffusers.AutoencoderKL, torch_dtype=dtype),
            "text_encoder": self._part("text_encoder", CLIPTextModel, dtype=dtype),
        }
        tokenizer = load_tokenizer(self._folder / "tokenizer")
        return assembled(**parts, tokenizer=tokenizer, scheduler=self._scheduler(diffusers))

    def _part(self, name: str, kind: Any, **loading: Any) -> Any:
        folder = self._folder / name
        check_settings(folder)
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            found = hub.pickles(folder)
            more = f" ({found[0]} is a pickle, which can run code when read and is never loaded)" if found else ""
            raise AssetError(f"pipeline.folder: {folder} has no safetensors weights{more}")
        borne_out = within(read_headers(files), where=folder, settings=read_settings(folder / "config.json"))
        with foreign_errors(f"cannot load the weights in {folder}"), quiet(), borne_out:
            part, report = kind.from_pretrained(
                str(folder), use_safetensors=True, local_files_only=True, output_loading_info=True, **loading
            )
        if missing := sorted(report["missing_keys"]):
            raise VlkitError(
                f"pipeline.folder: the weights in {folder} lack {len(missing)} tensors (the first: {missing[0]}), "
                f"which would stay random; get the folder again, all of it"
            )
        return part

    def _scheduler(self, diffusers: Any) -> Any:
        settings = read_settings(self._folder / "scheduler" / "scheduler_config.json")
        kind: Any = getattr(diffusers, str(settings.get("_class_name")), None)
        known = isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)
        if not known:
            raise VlkitError(
                f"pipeline.folder: {self._folder}: scheduler_config.json: _class_name = "
                f"{settings.get('_class_name')!r} is no scheduler of diffusers {diffusers.__version__}"
            )
        with foreign_errors(f"cannot build the scheduler of {self._folder}"), quiet():
            return kind.from_config(settings)


def build_pipeline(spec: PipelineSpec) -> BasePipeline:
    """The pipeline of a spec; its weights are read when they are first needed.

    Raises:
        AssetError: There is no such folder.
        VlkitError: It holds another kind of pipeline.
    """
    built: BasePipeline = PIPELINES.get_object(spec.kind)(spec)
    return built


def assembled(**parts: Any) -> Any:
    """A Stable Diffusion pipeline of its parts, without a safety checker."""
    pipeline = _diffusers().StableDiffusionPipeline
    with quiet():
        return pipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise MissingPackage("diffusers", purpose="a diffusion pipeline", extra="diffusers") from error
    return diffusers


@contextmanager
def _outputs(unet: Any, kept: list[Tensor] | None) -> Iterator[None]:
    """Puts the outputs of a denoiser's blocks into a list meanwhile."""

    def keep(_: Any, __: Any, output: Any) -> None:
        if kept is not None:
            kept.append(output[0] if isinstance(output, tuple) else output)

    blocks = [] if kept is None else [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    hooks = [block.register_forward_hook(keep) for block in blocks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
