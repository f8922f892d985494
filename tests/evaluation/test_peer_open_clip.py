"""The same answers as open_clip's own zero-shot classifier and recall, with a model of open_clip's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.helpers.evaluate_fakes import picture
from vlkit.evaluation.embed.encoding import Encoding
from vlkit.evaluation.metrics.recall import retrieval
from vlkit.evaluation.tasks.engine import score_task
from vlkit.evaluation.tasks.zero_shot_task import ZeroShotTask
from vlkit.types import Sample, TextBatch

TEMPLATES = ("a photo of a {}.", "{}", "a drawing of the {}.", "{}")
LABELS = ["tench", "great white shark", "crane", "laptop", "toilet tissue", "missile", "sunglasses"]


class Wrapped(nn.Module):
    """An open_clip model as a user would hand it over."""

    def __init__(self) -> None:
        super().__init__()
        vision = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16}
        self.clip = open_clip.CLIP(24, vision, {"width": 32, "heads": 2, "layers": 1})
        self.tokenizer = open_clip.get_tokenizer("ViT-B-32")

    def transform(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image.resize((32, 32)), dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)

    def encode_image(self, pixels_BCHW: Tensor) -> Tensor:
        return self.clip.encode_image(pixels_BCHW)

    def tokenize(self, texts: Sequence[str], *, language: str | None = None) -> TextBatch:
        ids_BL = self.tokenizer(list(texts))
        return TextBatch(ids_BL, (ids_BL > 0).long())

    def encode_text(self, tokens: TextBatch) -> Tensor:
        return self.clip.encode_text(tokens.ids_BL)


@pytest.fixture(scope="module")
def model() -> Wrapped:
    torch.manual_seed(1)
    return Wrapped().eval()


@torch.no_grad()
def test_same_predictions_as_its_zero_shot_classifier(model: Wrapped) -> None:
    images = [picture(n) for n in range(40)]
    samples = [Sample(key=str(n), image=lambda n=n: picture(n), captions={}) for n in range(40)]
    targets = [n % len(LABELS) for n in range(40)]
    task = ZeroShotTask("t", samples, {"en": [(label,) for label in LABELS]}, targets, TEMPLATES)
    scores = score_task(model, task, languages=["en"], answers=len(LABELS), encoding=Encoding(batch_size=16)).languages[
        "en"
    ]
    classifier_EK = open_clip.build_zero_shot_classifier(
        model.clip,
        model.tokenizer,
        LABELS,
        [lambda name, text=text: text.replace("{}", name) for text in TEMPLATES],
        num_classes_per_batch=3,
    )
    image_NE = model.clip.encode_image(torch.stack([model.transform(i) for i in images]), normalize=True)
    order_NK = (image_NE @ classifier_EK).argsort(dim=1, descending=True)
    assert torch.equal(scores.best_NM, order_NK)
    place_N = (order_NK == torch.tensor(targets)[:, None]).int().argmax(1)
    assert torch.equal(scores.rank_N.long(), place_N + 1)


@torch.no_grad()
def test_same_recall_as_ranking_its_logits(model: Wrapped) -> None:
    texts = [f"a {a} {b}" for a in ("red", "small", "old", "wet") for b in LABELS]
    image_NE = model.clip.encode_image(torch.stack([model.transform(picture(n)) for n in range(28)]), normalize=True)
    text_ME = model.clip.encode_text(model.tokenizer(texts), normalize=True)
    found = retrieval(image_NE, text_ME, image_of_text_M=range(28))
    logits_NM = model.clip.logit_scale.exp() * image_NE @ text_ME.T
    for scores, direction in ((logits_NM, found.image_to_text), (logits_NM.T, found.text_to_image)):
        place_Q = (scores.argsort(dim=1, descending=True) == torch.arange(28)[:, None]).int().argmax(1)
        for k in (1, 5, 10):
            assert direction.recall[k] == pytest.approx((place_Q < k).double().mean().item())
