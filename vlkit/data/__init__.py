"""Everything between files and batches: formats, sources, names of classes, plans, streams, data sets built here."""
