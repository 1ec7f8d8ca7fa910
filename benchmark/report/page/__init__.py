"""results/report.html: one file that needs no network, to rank, compare and trace what was measured."""
