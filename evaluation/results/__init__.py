"""Result folders: metrics.json, predictions.csv, per_class.csv, journal and tables."""
