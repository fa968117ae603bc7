"""What a network is: trace it once, then read the graph. Floor 1; imports floor 0 and torch."""
