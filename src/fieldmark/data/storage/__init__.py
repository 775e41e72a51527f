"""Where photos are stored: files, tars, Parquet cells, objects behind URLs."""
