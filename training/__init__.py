"""Learns to classify and to localize from images and the saliency maps in HDF5 shards."""
