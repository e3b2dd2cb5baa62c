"""Evaluation: score maps to boxes, and boxes to localization scores under named protocols."""
