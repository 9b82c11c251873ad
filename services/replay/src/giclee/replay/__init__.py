"""Dead letters and switches: what failed is found, shown and put back; what must stop is stopped."""
