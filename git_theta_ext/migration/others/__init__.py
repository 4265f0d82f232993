"""What other programs wrote: DVC, git-theta 0.2, and the cache of the Hugging Face Hub."""
