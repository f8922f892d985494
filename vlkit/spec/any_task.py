"""What the specs of all kinds of evaluation tasks share."""

from __future__ import annotations

from pydantic import Field

from vlkit.languages import normalize
from vlkit.spec.base import Spec


class AnyTask(Spec):
    """What all tasks share; each kind has a ``kind`` of its own as that field's default."""

    name: str = Field(pattern=r"^\w[\w.-]*$")
    """Names the task in results and files."""
    languages: tuple[str, ...] | None = Field(default=None, min_length=1)
    """BCP 47 tags; null takes the suite's. With en among them, each language is compared with English."""
    tokenizer_languages: dict[str, str] = Field(default_factory=dict)
    """What a tokenizer that marks the language of its input (NLLB's) is told for one it does not know: `{br: fr}`.
    Without an entry such a language is an error, never English."""

    @property
    def told(self) -> dict[str, str]:
        """``tokenizer_languages`` as BCP 47 tags."""
        return {normalize(one): normalize(other) for one, other in self.tokenizer_languages.items()}
