"""Looking for good settings of a training: a space, a study of trials on validation images, and the best of them."""
