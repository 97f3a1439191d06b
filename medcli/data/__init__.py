"""What is read: images with targets and splits. Importing the package brings numpy at most, never torch."""
