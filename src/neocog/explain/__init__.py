"""Look inside any network, and ask why it answers what it answers. Floor 1; imports floor 0, NumPy,
torch, and `analysis`, whose graph says what ran.

Everything works on any `nn.Module`, on a copy of it: weights, buffers, training flags, hooks and
gradients of the one that is handed over stay as they are.
"""
