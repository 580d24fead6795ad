"""Small models that guess for a large one, distilled from it on this machine."""
