"""The zoo: one family a file, one plain builder a network; builders are named by dotted strings in configs/model/."""
