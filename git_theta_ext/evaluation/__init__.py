"""Whether a version is good: evaluations, their results, and what is made of them."""
