"""Maps of many images: shards made in parallel by supervised processes, resumable at any moment."""
