"""The figures of the report, of the paper's rows and of our own: `draw.draw`. Only `draw` loads without matplotlib."""
