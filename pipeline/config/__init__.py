"""The content of params.yaml: tables, types, checks, and the code that entries name."""
