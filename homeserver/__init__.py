"""A Matrix homeserver: everything that one organisation's server is made of.

Spec: https://spec.matrix.org/v1.19/
"""
