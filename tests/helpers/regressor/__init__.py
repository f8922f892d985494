"""A third kind of model, as somebody else would add one: an image encoder and a linear map to one number.

``register()`` makes it known to vlkit; nothing in the package knows of it.
"""

from __future__ import annotations


def register() -> None:
    """Registers the kind, its objective and its task, each by one line."""
    from tests.helpers.regressor.spec import BrightnessObjective, RegressorSpec
    from tests.helpers.regressor.task import BrightnessTaskSpec
    from vlkit.evaluation.suite import TASKS
    from vlkit.models.registry import KINDS
    from vlkit.objectives.weighted_sum import OBJECTIVES
    from vlkit.spec.evaluation import TASK_KINDS
    from vlkit.spec.model import MODEL_KINDS
    from vlkit.spec.objectives import OBJECTIVE_KINDS

    KINDS.add("regressor", "tests.helpers.regressor")
    MODEL_KINDS.add(RegressorSpec)
    OBJECTIVES.add("brightness", "tests.helpers.regressor.objective:BrightnessLoss")
    OBJECTIVE_KINDS.add(BrightnessObjective)
    TASKS.add("brightness", "tests.helpers.regressor.task:open_brightness")
    TASK_KINDS.add(BrightnessTaskSpec)
