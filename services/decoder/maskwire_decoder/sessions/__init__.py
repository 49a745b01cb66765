"""SegmentStream: interactive sessions."""
