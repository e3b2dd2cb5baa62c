"""Trained networks at test time: localization maps, views, export."""
