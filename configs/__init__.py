"""The configs that come with the package: `--config NAME` for each file NAME.py here, or a path to one's own."""
