"""Charts, panels and overlays."""
