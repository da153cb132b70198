"""Measurements: `python -m bench` runs them all, `python -m bench drain pacing` some of them."""
