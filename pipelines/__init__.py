"""Knows data set layouts and command lines, and wires pseudo maps, training and evaluation together."""
