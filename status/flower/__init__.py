"""A tab in Flower: the runs, and each of them with its timeline, its graph and buttons for an operator."""
