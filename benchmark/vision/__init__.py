"""Everything that sees images: data, networks, training and evaluation."""
