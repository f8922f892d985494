"""A registry is a table of names; nothing is imported before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict

import pytest

from vlkit.errors import UnknownName
from vlkit.registry import Registry, matches

TABLE = {"ordered": "collections:OrderedDict", "broken": "no_such_module:thing", "old": "collections:Gone"}


def test_it_reads_like_the_mapping_it_is() -> None:
    registry = Registry("toy", TABLE)
    assert dict(registry) == TABLE and len(registry) == 3 and "ordered" in registry and "new" not in registry
    assert registry.get_object("ordered") is OrderedDict


def test_the_table_is_its_own() -> None:
    entries = dict(TABLE)
    registry = Registry("toy", entries)
    entries.clear()
    assert len(registry) == 3


def test_unknown_names_are_answered_with_the_nearest_and_the_hint() -> None:
    with pytest.raises(UnknownName) as caught:
        Registry("toy", TABLE, hint="See the shop.").get_object("orderd")
    assert str(caught.value) == "no toy 'orderd'; did you mean 'ordered'? See the shop."


def test_a_module_that_is_gone_is_not_taken_for_an_unknown_name() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        Registry("toy", TABLE).get_object("broken")
    with pytest.raises(AttributeError, match="Gone"):
        Registry("toy", TABLE).get_object("old")


def test_nothing_is_imported_until_it_is_asked_for() -> None:
    code = (
        "import sys; from vlkit.registry import Registry; table = Registry('toy', {'a': 'colorsys:rgb_to_hsv'});"
        "list(table), table['a'], 'colorsys' in sys.modules and sys.exit(1); table.get_object('a');"
        "sys.exit('colorsys' not in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("pattern", "fits"), [("b-32", True), ("VIT-*", True), ("b-32*", False), ("vit-?-32", True), ("vit-[lh]-*", False)]
)
def test_a_pattern_is_a_part_of_a_name_or_a_picture_of_all_of_it(pattern: str, fits: bool) -> None:
    assert matches("ViT-B-32", pattern) is fits
