"""Records of measurements, the claims of papers, and the pages rendered from both."""
