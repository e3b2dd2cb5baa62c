"""Object proposals of images, and their averages as saliency maps in HDF5 shards."""

__version__ = "0.1.0"
