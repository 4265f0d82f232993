"""Updates that a trainer supplies: adapters, bound to a checkpoint's tensors."""
