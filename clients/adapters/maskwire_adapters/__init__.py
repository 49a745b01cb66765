"""Maskwire behind the interfaces of labelling tools: Label Studio, CVAT, X-AnyLabeling."""
