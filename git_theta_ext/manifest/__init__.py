"""The text that Git stores in place of a checkpoint: what it says, its rules, its one encoding."""
