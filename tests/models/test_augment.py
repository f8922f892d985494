from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vlkit.models.augment import Augment
from vlkit.spec.dataset import AugmentSpec

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
ALL = AugmentSpec(crop_scale=(0.3, 0.9), flip=0.5, rotate=20, color=0.4, grayscale=0.2)


def test_by_default_nothing_changes() -> None:
    augment = Augment(AugmentSpec())
    assert augment.identity and augment(IMAGE, seed=3) is IMAGE


def test_a_view_is_a_function_of_its_seed() -> None:
    before = IMAGE.tobytes()
    views = [Augment(ALL)(IMAGE, seed=seed).tobytes() for seed in range(20)]
    np.random.seed(0)  # the global generator must not matter
    assert views == [Augment(ALL)(IMAGE, seed=seed).tobytes() for seed in range(20)]
    assert len(set(views)) == 20 and IMAGE.tobytes() == before


@pytest.mark.parametrize("scale", [(0.25, 0.25), (0.5, 0.8)])
def test_crops_have_the_share_asked_for(scale: tuple[float, float]) -> None:
    for seed in range(50):
        view = Augment(AugmentSpec(crop_scale=scale))(IMAGE, seed=seed)
        share = view.width * view.height / (60 * 40)
        assert scale[0] - 0.06 <= share <= scale[1] + 0.06


def test_chances() -> None:
    mirrored = Image.fromarray(np.asarray(IMAGE)[:, ::-1])
    augment = Augment(AugmentSpec(flip=0.5))
    views = [augment(IMAGE, seed=seed).tobytes() for seed in range(200)]
    assert set(views) == {IMAGE.tobytes(), mirrored.tobytes()}
    assert 65 <= views.count(mirrored.tobytes()) <= 135
    assert Augment(AugmentSpec(flip=1.0))(IMAGE, seed=0).tobytes() == mirrored.tobytes()
    gray = np.asarray(Augment(AugmentSpec(grayscale=1.0))(IMAGE, seed=0))
    assert (gray == gray[:, :, :1]).all()


def test_rotation_fills_with_white() -> None:
    black = Image.new("RGB", (40, 40))
    turned = np.asarray(Augment(AugmentSpec(rotate=45))(black, seed=1))
    assert turned.shape == (40, 40, 3) and (turned[0, 0] == 255).all() and (turned[20, 20] == 0).all()


def test_one_setting_leaves_the_draws_of_the_others_alone() -> None:
    for seed in range(20):
        flipped = Augment(AugmentSpec(flip=0.5))(IMAGE, seed=seed)
        both = Augment(AugmentSpec(flip=0.5, grayscale=1.0))(IMAGE, seed=seed)
        assert both.tobytes() == flipped.convert("L").convert("RGB").tobytes()
