"""Networks and layers that several methods are built of."""
