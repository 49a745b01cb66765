"""Prompts: parsing requests and encoding them for the model."""
