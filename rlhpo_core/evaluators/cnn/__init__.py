"""A convolutional network on images: what the configuration builds, how it is trained, and how the winner is served."""
