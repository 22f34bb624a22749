"""Images with a label each: from arrays, from a folder of class folders, or encoded in a Parquet file."""
