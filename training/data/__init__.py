"""Training batches: decoding, augmentation, sampling and Hide-and-Seek."""
