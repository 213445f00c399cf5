"""Figures of this project beside those of others, each a ratio taken in one run."""
