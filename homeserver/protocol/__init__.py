"""The rules of Matrix as pure code: no I/O, no clock, no randomness, no waiting.

External inputs of the rules (the time, random bytes, a key) are arguments.
"""
