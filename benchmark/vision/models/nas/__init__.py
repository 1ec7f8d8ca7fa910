"""Networks that an architecture search derives: one builder per space, with the architecture as its arguments."""
