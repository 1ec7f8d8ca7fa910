"""Low-rank factorization: layers as products of smaller ones."""
