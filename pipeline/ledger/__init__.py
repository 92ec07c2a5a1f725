"""The ledger: what a paper reports beside what was measured here, and what follows from it."""
