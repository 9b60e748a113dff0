"""The search product: vectors from pictures, galleries of them, who is found and how sure that is."""
