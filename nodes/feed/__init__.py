"""Feed handlers: exchange bytes in, normalised records out."""
