"""Images sorted into classes in the forms people have them: folders, tars, zips, parquet files, WebDataset shards."""
