"""Score maps to boxes, and boxes against ground truth."""
