"""The chain rule from the loss back to one weight. Room explain; floor 1."""
