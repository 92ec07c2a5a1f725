"""The report: data.py reads, plots.py draws, html.py and page.html lay out."""
