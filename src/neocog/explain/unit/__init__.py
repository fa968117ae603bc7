"""The arithmetic of one activation, back to the pixels. Room explain; floor 1."""
