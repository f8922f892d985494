"""What was found as a page of thumbnails: one HTML file that needs nothing else and runs no script."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from vlkit.errors import DataError
from vlkit.evaluation.report.gallery import thumbnail
from vlkit.evaluation.report.page import environment
from vlkit.evaluation.search.image_index import ImageIndex
from vlkit.evaluation.search.matches import Matches
from vlkit.files import write_atomic
from vlkit.version import __version__

_SIDE = 320  # pixels of a thumbnail's longer side


def write_search_page(path: Path, index: ImageIndex, found: Sequence[Matches]) -> Path:
    """Writes the page; images that are not there any more, or cannot be read, are told in their place.

    Raises:
        VlkitError: The place cannot be written to.
    """
    thumbnails: dict[str, str] = {}
    for name in dict.fromkeys(one.image for matches in found for one in matches):
        try:
            jpeg = thumbnail(index.image(name), size=_SIDE, kind="JPEG")
        except DataError:
            thumbnails[name] = ""
        else:
            thumbnails[name] = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
    meta = {
        "index": str(index.folder),
        "images": f"{len(index):,} in {index.source}",
        "model": f"{index.record.model} (digest {index.record.images_key})",
        "vlkit": __version__,
    }
    page = environment().get_template("search.html.j2").render(
        title="Images found" if len(found) > 1 else found[0].query,
        finding="",
        intro=f"The nearest of {len(index):,} images, with their cosines.",
        found=found,
        thumbnails=thumbnails,
        meta=meta.items(),
    )  # fmt: skip
    write_atomic(path, page)
    return path
