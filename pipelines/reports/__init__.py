"""Pages and pictures: reports of evaluations, previews of maps."""
