"""Training of classification and localization networks, from images and HDF5 shards of saliency maps."""
