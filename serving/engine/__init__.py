"""One GPU's engine: requests in, images out, batched at every step. Neither Ray nor HTTP in here."""
