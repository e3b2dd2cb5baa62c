"""Terminal output and options of the command lines."""
