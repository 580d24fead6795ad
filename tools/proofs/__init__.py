"""Proofs that run by hand: each says in its first lines what it wants, and ends with its figures."""
