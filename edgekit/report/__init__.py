"""How results look: tables for people and pictures of numbers."""
