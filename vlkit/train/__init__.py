"""The training loop, its feature cache, checkpoints and run folder.

The package is callable: ``vlkit.train(recipe)`` is ``vlkit.train.loop.train(recipe)``. The import system binds a
package's name in its parent, so a function of the same name there would be lost as soon as a module of this package is
imported.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlkit.spec.recipe import Recipe
    from vlkit.train.loop import Show
    from vlkit.train.run import Run


class _Train(ModuleType):
    def __call__(
        self, recipe: Recipe, *, resume: bool = False, overwrite: bool = False, show: Show | None = None
    ) -> Run:
        """Runs a recipe; see ``vlkit.train.loop.train``."""
        from vlkit.train.loop import train

        return train(recipe, resume=resume, overwrite=overwrite, show=show)


sys.modules[__name__].__class__ = _Train
