"""Result folders: metrics.json, predictions.csv, journal and tables."""
