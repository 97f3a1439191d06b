"""A run turned into files that leave the building with everything they need, checked against the run first."""
