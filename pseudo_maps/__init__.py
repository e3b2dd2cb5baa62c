"""Turns images into object proposals, and the proposals into averaged saliency maps in HDF5 shards."""

__version__ = "0.1.0"
