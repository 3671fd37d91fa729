"""Models for AI Playground: downloads from the Hugging Face Hub."""
