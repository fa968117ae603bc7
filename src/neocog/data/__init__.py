"""From a path or a name to batches. Floor 1; imports floor 0 and its own files only.

Readers turn a path into a `Source` (`sources`), scan and pack turn a `Source` into a `Dataset`.
"""
