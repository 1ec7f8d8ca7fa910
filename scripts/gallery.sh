#!/bin/sh
# Every table, figure and page that the suite can draw, from three sources, each of which says what it is: the paper's own table, the
# records of the demo (where `make bench` has made them; RESULTS names another folder), and records of a board that does not exist, by
# the fake driver of the tests (for what only a GPU's meter shows).
set -eu
python="${VENV:-.venv}/bin/python"
results="${RESULTS:-results/.demo}"
fake=results/.fake-board
"$python" -m benchmark report source=paper
if [ -d "$results/records" ]; then
    "$python" -m benchmark report "paths.results=$results" exports=true
else
    echo "no records under $results: make bench makes them (or RESULTS=folder); the rest follows"
fi
if [ ! -d "$fake/results/records" ]; then
    echo "making records on a board that does not exist (a minute or two) ..."
    rm -rf "$fake" "$fake.part"
    "$python" -m tests.report.fake_board "$fake.part"
    mv "$fake.part" "$fake"  # whole or not at all
fi
"$python" -m benchmark report "paths.results=$fake/results" "paths.artifacts=$fake/artifacts" exports=true
for folder in results/.paper "$results" "$fake/results"; do
    [ ! -d "$folder" ] || echo "$folder: $(ls "$folder"/figures/*.svg 2>/dev/null | wc -l) figures, $(ls "$folder"/tables/* 2>/dev/null | wc -l) tables, $folder/report.html"
done
