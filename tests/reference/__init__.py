"""What recomputes the numbers of the package independently, and the weights that both sides draw."""
