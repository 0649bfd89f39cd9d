"""Tests of the rules of single sign-on."""
