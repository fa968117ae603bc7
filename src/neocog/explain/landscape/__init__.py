"""The loss around the weights of a network. Room explain; floor 1."""
