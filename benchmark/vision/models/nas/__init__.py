"""Networks that an architecture search derives: a builder a space, with the architecture as its arguments."""
