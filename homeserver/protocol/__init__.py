"""The rules of Matrix as pure code: no I/O, no clock, no randomness, nothing that waits.

Whatever the rules need of the world (the time, random bytes, a key) is an argument.
"""
