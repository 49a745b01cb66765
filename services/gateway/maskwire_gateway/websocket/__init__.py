"""Sessions and tracks over WebSockets."""
