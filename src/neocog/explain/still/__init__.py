"""Whether answers hold still while pictures change. Room explain; floor 1."""
