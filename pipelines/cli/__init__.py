"""What the command lines share, and the subcommands of wsol-prep."""
