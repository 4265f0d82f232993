"""Updates: each predicts a block from its predecessor and keeps the exact residual."""
