"""Masks and prompts on the wire: run lengths, the forms of masks, checks of points and boxes."""
