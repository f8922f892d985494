"""Zero-shot classification and retrieval in many languages: suites, statistics, results, report.

The package is callable, as ``vlkit.train`` is: ``vlkit.evaluate(model, suite)`` is ``vlkit.evaluate.run.evaluate``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlkit.collectives import Ranks
    from vlkit.evaluate.embed import Embedder
    from vlkit.evaluate.results import Results
    from vlkit.evaluate.suite import Suite
    from vlkit.spec.evaluation import SuiteSpec


class _Evaluate(ModuleType):
    def __call__(
        self,
        model: Embedder,
        suite: Suite | SuiteSpec | str | Path,
        *,
        name: str = "model",
        folder: str | Path | None = None,
        cache: str | Path | None = None,
        resume: bool = False,
        overwrite: bool = False,
        ranks: Ranks | None = None,
        quiet: bool = False,
    ) -> Results:
        """Evaluates a model on a suite; see ``vlkit.evaluate.run.evaluate``."""
        from vlkit.evaluate.run import evaluate

        return evaluate(
            model,
            suite,
            name=name,
            folder=folder,
            cache=cache,
            resume=resume,
            overwrite=overwrite,
            ranks=ranks,
            quiet=quiet,
        )


sys.modules[__name__].__class__ = _Evaluate
