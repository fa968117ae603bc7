"""Trained networks that answer, in PyTorch, ONNX Runtime or OpenVINO. Floor 3.

Imports bundle, described, tasks and floors 0 and 1. The libraries beside PyTorch are extras, and
imported where a file of theirs is opened.
"""
