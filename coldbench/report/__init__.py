"""The report: scores beside the paper's numbers, a verdict for every cell, and the page that shows them."""
