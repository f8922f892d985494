"""Scores of a model in many languages: suites of tasks, results, comparisons and reports."""
