"""Several commands as one experiment: pipeline files, the paper's tables, the demo, and their runner."""
