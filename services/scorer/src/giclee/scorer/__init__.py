"""Measures every image on independent dimensions; a versioned gate says what that means. Never decides alone."""
