"""Where codes stand in published models that hold words and codes in one table, for who reads or writes such files.

Such a table is longer than the tokenizer's vocabulary in some language models (Qwen's is padded), so the first code's
number is told, not worked out of the tokenizer (as Show-o's training and sampling code do, in two ways).
"""

from __future__ import annotations

from dataclasses import dataclass

from vlkit.errors import VlkitError


@dataclass(frozen=True)
class CodeIds:
    """Rows of one table: those of words, then further marks, then codes, then the mask.

    ``words`` are the rows of the text (padding rows of the table included), ``marks`` the further special tokens, and
    ``codes`` the codebook.
    """

    words: int
    marks: int
    codes: int

    @property
    def first(self) -> int:
        """The id of code 0."""
        return self.words + self.marks

    @property
    def mask(self) -> int:
        """The id of a hidden code: the last one."""
        return self.first + self.codes

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return self.mask + 1

    def id_of(self, code: int) -> int:
        """The id of a code, or of the mask for ``codes``.

        Raises:
            VlkitError: There is no such code.
        """
        if not 0 <= code <= self.codes:
            raise VlkitError(f"code {code} does not exist; there are 0..{self.codes - 1}, and {self.codes} for hidden")
        return self.first + code

    def code_of(self, number: int) -> int | None:
        """The code of an id (``codes`` for the mask); None for a word or a mark.

        Raises:
            VlkitError: The table has no such row.
        """
        if not 0 <= number < self.rows:
            raise VlkitError(f"id {number} is no row of a table of {self.rows}")
        return number - self.first if number >= self.first else None


SHOW_O = CodeIds(words=50_295, marks=10, codes=8_192)
"""Of Show-o (arXiv 2408.12528): Phi-1.5's words and ten marks."""
NEOBABEL = CodeIds(words=256_000, marks=10, codes=8_192)
"""Of NeoBabel (arXiv 2507.06137): Gemma 2's words and ten marks."""
