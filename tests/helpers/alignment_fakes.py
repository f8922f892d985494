"""Plain computations to compare with, and small parallel texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

LINES = {
    "en": ["a cat", "a big dog", "the dog runs", "a small cat on the mountain", "dog", "a cat and a dog"],
    "de": ["eine katze", "ein hund", "der hund rennt weg", "katze auf dem berg", "hund", "katze und hund"],
    "fr": ["un chat", "un grand chien", "le chien", "un petit chat", "chien", "un chat et un chien"],
}


def plain_scores(pivot_ND: npt.ArrayLike, other_ND: npt.ArrayLike, *, k: int = 10) -> dict[str, float]:
    """All scores by their definitions, in loops."""
    one, other = np.asarray(pivot_ND, float), np.asarray(other_ND, float)
    n = len(one)
    cos = [[float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) for b in other] for a in one]
    cos = [[round(value, 11) for value in row] for row in cos]
    columns = [list(column) for column in zip(*cos, strict=True)]

    def wins(i: int, j: int) -> tuple[bool, bool]:
        row = all(cos[i][j] > cos[i][other] for other in range(n) if other != j)
        return row, all(cos[i][j] > cos[other][j] for other in range(n) if other != i)

    def top(values: list[float]) -> float:
        best = sorted(values, reverse=True)[:k]
        return sum(best) / len(best)

    r_row, r_column = [top(row) for row in cos], [top(column) for column in columns]
    fix = [[2 * cos[i][j] - r_row[i] - r_column[j] for j in range(n)] for i in range(n)]
    strict = 1e-9
    rows = [all(fix[i][i] > fix[i][j] + strict for j in range(n) if j != i) for i in range(n)]
    cols = [all(fix[i][i] > fix[j][i] + strict for j in range(n) if j != i) for i in range(n)]
    own = [wins(i, i) for i in range(n)]
    pairs = sum(cos[i][i] for i in range(n)) / n
    others = sum(cos[i][j] for i in range(n) for j in range(n) if i != j) / (n * n - n)
    a, b = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (one, other))
    a, b = a - a.mean(0), b - b.mean(0)
    centred = [x @ y / (np.linalg.norm(x) * np.linalg.norm(y)) for x, y in zip(a, b, strict=True)]
    return {
        "mexa": sum(row and column for row, column in own) / n,
        "mexa_chance": sum(all(wins(i, j)) for i in range(n) for j in range(n)) / n**2,
        "cosine": pairs,
        "centred_cosine": float(np.mean(centred)),
        "margin": pairs - others,
        "p1_from_pivot": sum(row for row, _ in own) / n,
        "p1_to_pivot": sum(column for _, column in own) / n,
        "csls_from_pivot": sum(rows) / n,
        "csls_to_pivot": sum(cols) / n,
    }


def write_lines(folder: Path, *, names: dict[str, str] | None = None, suffix: str = ".txt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for code, lines in LINES.items():
        (folder / f"{(names or {}).get(code, code)}{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
