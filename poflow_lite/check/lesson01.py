"""Checks of lesson 01."""
