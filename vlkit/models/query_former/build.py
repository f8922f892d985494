"""From its spec to a Q-Former with what it learns from."""

from __future__ import annotations

from pathlib import Path

from vlkit.models.query_former.model import QueryFormer
from vlkit.parts.bridges import build_bridge
from vlkit.parts.encoders import build_image_encoder
from vlkit.parts.query_reader import QueryReader
from vlkit.spec.model import QueryFormerSpec


def build(spec: QueryFormerSpec, *, saved: Path | None, empty: bool) -> QueryFormer:
    """The model of a spec, without its adapters; see ``models.registry.build``."""
    encoder = build_image_encoder(spec.encoder, saved=saved and saved / "encoder", empty=empty)
    kept = saved is not None and not empty
    bridge = build_bridge(spec.bridge, encoder.token_width, spec.embed_dim, saved=kept, empty=empty)
    text = QueryReader.build(
        spec.text, spec.bridge, embed_dim=spec.embed_dim, saved=saved and saved / "text", empty=empty
    )
    return QueryFormer(encoder, bridge, text, init_scale=spec.init_scale)
