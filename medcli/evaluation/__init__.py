"""Predictions to numbers, with numpy, scipy and scikit-learn alone."""
