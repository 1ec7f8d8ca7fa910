"""The zoo: one file per family, one plain builder per network; configs/model/ names builders by dotted strings."""
