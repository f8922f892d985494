"""Zero-shot classification and evaluation, statistics, results, report."""
