"""What was measured, what papers report, and the pages that follow from both."""
