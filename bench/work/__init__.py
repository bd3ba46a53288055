"""The data of products, steps and fits, and what has to come out of them, whoever computes it."""
