"""Clears requests for routing, or refuses them by the first rule that matches. Stores every verdict."""
