"""Why a network answers as it does: what pixels had to do with it. Room explain; floor 1."""
