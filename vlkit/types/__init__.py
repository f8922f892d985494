"""The seams: what samples, parts and models must offer to be joined with the others.

A user's own module needs no base class of ours.
"""

from vlkit.types.model_types import (
    AnsweringModel,
    AnswersQuestions,
    Batch,
    ChangesImages,
    Embeddings,
    ForetellsCodes,
    FrozenTables,
    GivesImagesBack,
    ImageTextModel,
    Loss,
    Model,
    Objective,
    Painter,
    Piece,
    Preparer,
    Start,
    TakesSizes,
    as_module,
)
from vlkit.types.part_types import (
    Bridge,
    ClassRows,
    GivesLayerStates,
    GivesStates,
    ImageEncoder,
    ImageFacts,
    ImageTokenizer,
    KeepsPrefix,
    KnowsClasses,
    KnowsVocabulary,
    LanguageModel,
    Prefix,
    ReadsOtherTokens,
    ResizesImages,
    SavesConfig,
    SharesLayers,
    TellsFacts,
    TextBatch,
    TextEncoder,
    TransformsAtSizes,
    Vocabulary,
    lacking,
)
from vlkit.types.sample_types import IMAGE_MARK, Pick, Question, ReducedDecoding, Sample, SampleMeta, Source, Turn

__all__ = [
    "IMAGE_MARK", "AnsweringModel", "AnswersQuestions", "Batch", "Bridge", "ChangesImages", "ClassRows", "Embeddings",
    "ForetellsCodes", "FrozenTables", "GivesImagesBack", "GivesLayerStates", "GivesStates", "ImageEncoder",
    "ImageFacts", "ImageTextModel", "ImageTokenizer", "KeepsPrefix", "KnowsClasses", "KnowsVocabulary",
    "LanguageModel", "Loss", "Model", "Objective", "Painter", "Pick", "Piece", "Prefix", "Preparer", "Question",
    "ReadsOtherTokens", "ReducedDecoding", "ResizesImages", "Sample", "SampleMeta", "SavesConfig", "SharesLayers",
    "Source", "Start", "TakesSizes", "TellsFacts", "TextBatch", "TextEncoder", "TransformsAtSizes", "Turn",
    "Vocabulary", "as_module", "lacking",
]  # fmt: skip
