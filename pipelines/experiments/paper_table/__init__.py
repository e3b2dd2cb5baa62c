"""The tables of the paper: every row trained and scored."""
