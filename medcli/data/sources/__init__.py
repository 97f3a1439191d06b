"""Where images and labels come from: one module per kind of data set, each returning `Cases`."""
