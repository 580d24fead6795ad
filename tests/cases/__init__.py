"""Inputs that went wrong elsewhere, and the right values of each, computed by the library that knows."""
