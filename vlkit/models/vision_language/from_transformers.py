"""Whole vision-language models of transformers as ours: BLIP-2 and mBLIP (a Q-Former between), LLaVA (a perceptron).

Each part is read straight from the folder of the whole model (``parts.inside_models``), and nothing is drawn anew. No
`<image>` token is needed: places of images are told by masks. So models of before transformers 5, which have none, load
as they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vlkit.errors import AssetError, VlkitError
from vlkit.models.vision_language.model import VisionLanguageModel
from vlkit.obstacles import Obstacles
from vlkit.parts import assets
from vlkit.parts.assets import hub
from vlkit.parts.bridges import build_bridge
from vlkit.parts.configs import read_settings
from vlkit.parts.encoders import build_image_encoder
from vlkit.parts.hf_common import read_config
from vlkit.parts.hf_image import HfImageEncoder
from vlkit.parts.language_models import build_language_model
from vlkit.parts.qformer_weights import load_qformer
from vlkit.parts.weight_files import read_header, read_tensors
from vlkit.spec.bridges import MlpBridgeSpec, QFormerBridgeSpec
from vlkit.spec.language import HfLanguage
from vlkit.spec.model import DialogueSpec
from vlkit.spec.parts import HfImage
from vlkit.types import LanguageModel

_ROOM = HfLanguage.model_fields["max_length"].default  # for text, beside the places of an image
_BERT_EPS = 1e-12
_PLAIN = DialogueSpec(user="{text}", assistant="{text}")
_VICUNA = DialogueSpec(user="USER: {text} ", assistant="ASSISTANT: {text}")
# what only the templates of one family of chat models hold -> how its conversations look
_FAMILIES = {
    "<|im_start|>": DialogueSpec(
        user="<|im_start|>user\n{text}<|im_end|>\n",
        assistant="<|im_start|>assistant\n{text}\n",
        end="<|im_end|>",
    ),
    "<start_of_turn>": DialogueSpec(
        user="<start_of_turn>user\n{text}<end_of_turn>\n",
        assistant="<start_of_turn>model\n{text}\n",
        end="<end_of_turn>",
    ),
    "<|start_header_id|>": DialogueSpec(
        user="<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>",
        assistant="<|start_header_id|>assistant<|end_header_id|>\n\n{text}",
        end="<|eot_id|>",
    ),
    "[INST]": DialogueSpec(user="[INST] {text} [/INST]", assistant=" {text}"),
}
_TEMPLATES = ("chat_template.jinja", "chat_template.json", "processor_config.json", "tokenizer_config.json")


def load_blip2(where: str) -> VisionLanguageModel:
    """A ``Blip2ForConditionalGeneration``, by hub id or folder.

    Raises:
        AssetError: Files are missing or damaged.
        VlkitError: Its Q-Former is of another form than BLIP-2's.
    """
    folder = assets.resolve(where, library="hf")
    config = read_config(folder)
    bridge_spec = _qformer_spec(config, where=where)
    encoder = build_image_encoder(HfImage(name=where, extra_tokens=True))
    language_model = _language_model(where, image_tokens=bridge_spec.num_queries)
    bridge: Any = build_bridge(bridge_spec, encoder.token_width, language_model.width, saved=True)
    if new := load_qformer(bridge, folder).new:
        raise VlkitError(f"{where}: its Q-Former's {new[0]} does not fit its configuration; get the folder again")
    dialogue = _PLAIN.model_copy(update={"images_first": not language_model.encodes})
    return VisionLanguageModel(encoder, bridge.eval(), language_model, dialogue=dialogue)


def load_llava(where: str) -> VisionLanguageModel:
    """A ``LlavaForConditionalGeneration``, by hub id or folder.

    Its conversations are laid out as its family's are, told by its chat template; without one as in LLaVA 1.5.

    Raises:
        AssetError: Files are missing or damaged.
        VlkitError: It selects features of images as no encoder of ours gives them, or joins them otherwise.
    """
    folder = assets.resolve(where, library="hf")
    config = read_config(folder)
    if config.projector_hidden_act != "gelu":
        raise VlkitError(
            f"{where}: projector_hidden_act = {config.projector_hidden_act!r}; only gelu is between a mlp bridge's maps"
        )
    layers = config.vision_feature_layer
    full = config.vision_feature_select_strategy == "full"
    chosen = tuple(layers) if isinstance(layers, list | tuple) else (layers,)
    encoder: Any = build_image_encoder(HfImage(name=where, layers=chosen, extra_tokens=full))
    check_selection(encoder, chosen, drops_first=not full, where=where)
    language_model = _language_model(where, image_tokens=encoder.num_tokens(encoder.image_size))
    bridge: Any = build_bridge(MlpBridgeSpec(), encoder.token_width, language_model.width, saved=True)
    _read_projector(bridge.maps, folder, where=where)
    return VisionLanguageModel(encoder, bridge.eval(), language_model, dialogue=_dialogue(folder))


def _qformer_spec(config: Any, *, where: str) -> QFormerBridgeSpec:
    inner, obstacles = config.qformer_config, Obstacles()
    wrong = {
        "hidden_act": (inner.hidden_act, "gelu"),
        "layer_norm_eps": (inner.layer_norm_eps, _BERT_EPS),
        "use_qformer_text_input": (inner.use_qformer_text_input, False),
    }
    obstacles.found += [
        f"{where}: qformer_config.{key} = {found!r}, and a qformer bridge has {expected!r}"
        for key, (found, expected) in wrong.items()
        if found != expected
    ]
    obstacles.refuse()
    return QFormerBridgeSpec(
        num_queries=config.num_query_tokens,
        width=inner.hidden_size,
        layers=inner.num_hidden_layers,
        heads=inner.num_attention_heads,
        ffn=inner.intermediate_size,
        cross_every=inner.cross_attention_frequency,
        dropout=inner.hidden_dropout_prob,
    )


def _language_model(where: str, *, image_tokens: int) -> LanguageModel:
    return build_language_model(HfLanguage(name=where, max_length=_ROOM + image_tokens))


@torch.no_grad()
def check_selection(encoder: HfImageEncoder, layers: tuple[int, ...], *, drops_first: bool, where: str) -> None:
    """Sees that LLaVA's way of choosing features of images and an encoder's own give the same ones.

    LLaVA takes states before any last norm, and either all of their places or all but the first.

    Raises:
        VlkitError: They do not.
    """
    size = encoder.image_size
    pixels_BCHW = torch.linspace(-1, 1, 3 * size * size).view(1, 3, size, size)
    states = encoder.block_states(pixels_BCHW)
    theirs = torch.cat([states[layer][:, int(drops_first) :] for layer in layers], dim=-1)
    ours = encoder.tokens(pixels_BCHW)
    if theirs.shape != ours.shape:
        strategy = "default" if drops_first else "full"
        raise VlkitError(
            f"{where}: vision_feature_select_strategy = {strategy!r} takes {theirs.shape[1]} places of an image, and "
            f"its encoder has {ours.shape[1]} that show a part of it; set it to {'full' if drops_first else 'default'}"
        )
    if not torch.allclose(theirs.float(), ours.float(), atol=1e-4):
        raise VlkitError(
            f"{where}: vision_feature_layer = {list(layers)} takes the last block's states before the encoder's last "
            f"norm; vlkit's encoders give them after it: take layer -2"
        )


def _read_projector(maps: nn.ModuleList, folder: Path, *, where: str) -> None:
    """Puts the weights of ``multi_modal_projector`` into the linear maps; where it has no biases, they are zero."""
    found: dict[str, Tensor] = {}
    for file in hub.weight_files(folder):
        names = [name for name in read_header(file) if "multi_modal_projector." in name]
        tensors = read_tensors(file, names)
        found |= {re.sub(r"^.*multi_modal_projector\.", "", name): tensor for name, tensor in tensors.items()}
    state = {}
    for place, name in enumerate(("linear_1", "linear_2")):
        if f"{name}.weight" not in found:
            raise AssetError(f"{folder}: its weights lack multi_modal_projector.{name}.weight; get the folder again")
        state[f"{place}.weight"] = found[f"{name}.weight"].float()
        state[f"{place}.bias"] = found.get(f"{name}.bias", torch.zeros(len(found[f"{name}.weight"]))).float()
    try:
        maps.load_state_dict(state)
    except RuntimeError as error:
        raise VlkitError(f"{where}: its projector does not fit its configuration: {error}") from None


def _dialogue(folder: Path) -> DialogueSpec:
    """Told by what only the chat templates of a family hold; no template is run."""
    for name in _TEMPLATES:
        if not (path := folder / name).is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace") if path.suffix == ".jinja" else _template(path)
        for mark, spec in _FAMILIES.items():
            if mark in text:
                return spec
    return _VICUNA


def _template(path: Path) -> str:
    found = read_settings(path).get("chat_template")
    return found if isinstance(found, str) else ""
