"""The seams: what samples, parts and models must offer to be joined with the others.

A user's own module needs no base class of ours.
"""

from vlkit.types.model_types import (
    AnsweringModel,
    AnswersQuestions,
    Batch,
    Embeddings,
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
    as_module,
)
from vlkit.types.part_types import (
    Bridge,
    ClassRows,
    GivesStates,
    ImageEncoder,
    ImageFacts,
    ImageTokenizer,
    KnowsClasses,
    KnowsVocabulary,
    LanguageModel,
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
    "IMAGE_MARK", "AnsweringModel", "AnswersQuestions", "Batch", "Bridge", "ClassRows", "Embeddings", "FrozenTables",
    "GivesImagesBack", "GivesStates", "ImageEncoder", "ImageFacts", "ImageTextModel", "ImageTokenizer", "KnowsClasses",
    "KnowsVocabulary", "LanguageModel", "Loss", "Model", "Objective", "Painter", "Pick", "Piece", "Preparer",
    "Question", "ReadsOtherTokens", "ReducedDecoding", "ResizesImages", "Sample", "SampleMeta", "SavesConfig",
    "SharesLayers", "Source", "Start", "TellsFacts", "TextBatch", "TextEncoder", "TransformsAtSizes", "Turn",
    "Vocabulary", "as_module", "lacking",
]  # fmt: skip
