"""One module for each broker; they do not know each other."""
