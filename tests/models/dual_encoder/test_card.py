"""The model card."""

from __future__ import annotations

from ruamel.yaml import YAML

from vlkit.models.card_text import CardFacts
from vlkit.models.dual_encoder.card import render_card
from vlkit.models.dual_encoder.model import DualEncoder
from vlkit.models.folder import save
from vlkit.spec.parts import HfText


def front_matter(card: str) -> dict:
    _, front, _ = card.split("---\n", 2)
    return YAML(typ="safe").load(front)


def test_the_card_of_a_bare_model_has_its_parts(model, tmp_path) -> None:
    card = (save(model, tmp_path / "m") / "README.md").read_text()
    assert card == render_card(model)
    for part in ("image", "text", "image_head", "text_head", "scale"):
        assert f"| {part} | " in card
    assert "## Scores" not in card and "\n\n\n" not in card
    assert front_matter(card)["library_name"] == "vlkit"


def test_the_card_tells_what_it_is_told(model) -> None:
    facts = CardFacts(
        title="Quickstart",
        languages=("no", "de"),
        data=("OpenMoji 17 (CC BY-SA 4.0)",),
        scores={"unseen | top-1": 0.2134},
        limits=("Drawings only.",),
    )
    card = render_card(model, facts)
    assert front_matter(card)["language"] == ["no", "de"], "Norwegian is a language, not a boolean"
    for expected in (
        "# Quickstart",
        "- no, de",
        "- OpenMoji 17 (CC BY-SA 4.0)",
        "| unseen \\| top-1 | 21.3 % |",
        "- Drawings only.",
    ):
        assert expected in card
    assert 'language="no"' in card


def test_known_parts_come_with_license_and_source(model) -> None:
    model.text.spec = HfText(name="intfloat/multilingual-e5-small")
    card = render_card(DualEncoder(model.image, model.text, embed_dim=8))
    assert (
        "| text | hf: intfloat/multilingual-e5-small |" in card and "| MIT. multilingual-e5-small of Microsoft" in card
    )
    model.text.spec = HfText(name="org/other")
    assert "see the model's own page" in render_card(model)


def test_a_card_of_ones_own_is_kept(model, tmp_path) -> None:
    assert (save(model, tmp_path / "m", card="Grüße\n") / "README.md").read_text(encoding="utf-8") == "Grüße\n"
