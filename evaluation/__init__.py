"""Turns activation and saliency maps into boxes, and boxes into localization scores under named protocols."""
