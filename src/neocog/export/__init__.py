"""A trained network as a file for other programs, checked before it is kept. Floor 4.

Imports runtime, bundle, run, metrics and below. The libraries that write the files are extras,
imported where they are used.
"""
