"""Trained networks behind HTTP, for clients that nobody knows. Floor 4.

Imports runtime, tasks, data, html and below; what the extra `serve` brings is imported where it is
used.
"""
