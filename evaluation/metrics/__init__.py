"""Metrics over many images: rates, intervals, kinds of error, pixels, baselines."""
