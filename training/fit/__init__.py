"""From a handful of pairs to the weights of an adapter."""
