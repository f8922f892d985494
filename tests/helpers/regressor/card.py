"""Its model card."""

from __future__ import annotations

from tests.helpers.regressor.model import Regressor


def render_card(model: Regressor) -> str:
    return "# A regressor of brightness\n"
