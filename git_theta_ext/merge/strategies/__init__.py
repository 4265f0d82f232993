"""How tensors are merged: the table of strategies, and the choice of one for each tensor."""
