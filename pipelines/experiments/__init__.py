"""Steps run in order: the pipeline file, the demo and the tables of the paper."""
