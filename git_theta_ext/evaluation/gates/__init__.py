"""Whether an update is accepted: its scores compared, and judged by the rules of its base."""
