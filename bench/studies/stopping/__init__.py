"""Where fits with dropout stop by themselves, and what that gives away."""
